"""From posts, and an LLM's answers about them, to spaCy Docs. Every entity survives.

Which posts of an input are taken, which of them count as labelled, and under which labels.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from spacy.language import Language
from spacy.tokens import Doc, Span

from ..errors import Errors, MMCoTError, UsageError
from ..types import ID_KEY, KNOWLEDGE, Answers, Post, Relation, Split
from .extensions import register, set_pairs
from .rows import Findings, Row

Tokenizer = Literal["spacy", "whitespace"]

_TRIMMED = "entities with white space at an edge, trimmed"
_SPLIT = "tokens split at the edge of an entity"
_LOST = "entities that no token covers, lost"
_LOST_PAIRS = "pairs of a lost entity, lost"
_LOST_RELATIONS = "relations of a lost entity, lost"


def to_doc(
    nlp: Language,
    post: Post,
    answers: Answers | None = None,
    *,
    tokenizer: Tokenizer = "spacy",
    keep_mentions: bool = False,
    findings: Findings | None = None,
) -> Doc:
    """A Doc with the post's text, id, picture path, knowledge, entities, relations and pairs.

    `tokenizer` is the pipeline's own, or `whitespace`: a token is what stands between spaces
    (U+0020), for text that was tokenised before. Where an entity begins or ends inside a token,
    that token is split there. What was changed or lost goes into `findings`. The entities of a
    post that is not labelled, or of the split `unlabelled`, are marked as missing; with
    `keep_mentions`, where mentions are given and relations are sought, an unlabelled post keeps
    its entities and pairs, and loses its relations alone.

    Raises MMCoTError for a text longer than the tokenizer takes.
    """
    register()
    findings = findings or Findings()
    if len(post.text) > nlp.max_length:
        raise MMCoTError(
            Errors.E206.format(id=post.id, length=len(post.text), limit=nlp.max_length)
        )
    labelled = post.split != "unlabelled"
    kept = post.entities is not None and (labelled or keep_mentions)
    edges = [_trim(post, i, findings) for i in range(len(post.entities or []) if kept else 0)]
    doc = nlp.make_doc(post.text) if tokenizer == "spacy" else _split_at_spaces(nlp, post.text)
    doc = _split_at_edges(doc, post, edges, findings)

    doc.user_data[ID_KEY] = post.id
    if post.image is not None:
        doc._.mmcot_image = post.image
    known = knowledge_of(post, answers)
    if known:
        doc._.mmcot_knowledge = known
    if kept:
        spans = [_span(doc, post, i, edge, findings) for i, edge in enumerate(edges)]
        doc.set_ents([span for span in spans if span is not None], default="outside")
        _set_pairs(doc, post, spans, findings)
        if labelled:
            _set_relations(doc, post, spans, findings)
    else:
        doc.set_ents([], default="missing")
    return doc


def knowledge_of(post: Post, answers: Answers | None) -> dict[str, Any]:
    """What `doc._.mmcot_knowledge` holds: the answers to the knowledge prompts and the caption,
    those that are known."""
    found = answers.model_dump(exclude_none=True) if answers else {}
    known: dict[str, Any] = {name: found[name] for name in KNOWLEDGE if name in found}
    if post.caption:
        known["caption"] = post.caption
    return known


def _describe(post: Post, index: int) -> str:
    entity = (post.entities or [])[index]
    surface = post.text[entity.start : entity.end]
    return f"{post.id}: {surface!r} ({entity.start}, {entity.end}, {entity.label})"


def _trim(post: Post, index: int, findings: Findings) -> tuple[int, int]:
    """The entity's characters without white space at the edges, which no spaCy entity may have."""
    entity = (post.entities or [])[index]
    surface = post.text[entity.start : entity.end]
    start = entity.end - len(surface.lstrip())
    end = entity.start + len(surface.rstrip())
    if (start, end) != (entity.start, entity.end):
        findings.change(_TRIMMED, _describe(post, index))
    return start, end


def _split_at_spaces(nlp: Language, text: str) -> Doc:
    """Tokens are the runs between spaces; a space more than one between two runs is a token too,
    as with spaCy's tokenizer, so that the Doc's text stays the post's."""
    words: list[str] = []
    spaces: list[bool] = []
    for piece in re.findall(r"[^ ]+| +", text):
        if piece[0] == " " and words and words[-1][0] != " ":
            spaces[-1] = True
            piece = piece[1:]
        if piece:
            words.append(piece)
            spaces.append(False)
    return Doc(nlp.vocab, words=words, spaces=spaces)


def _split_at_edges(doc: Doc, post: Post, edges: list[tuple[int, int]], findings: Findings) -> Doc:
    """The same Doc, or one in which no entity begins or ends inside a token."""
    words: list[str] = []
    spaces: list[bool] = []
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        inside = {edge: i for i, pair in enumerate(edges) for edge in pair if start < edge < end}
        cuts = [start, *sorted(inside), end]
        words.extend(post.text[left:right] for left, right in pairwise(cuts))
        spaces.extend([False] * len(inside))
        spaces.append(bool(token.whitespace_))
        for index in sorted(set(inside.values())):
            findings.change(_SPLIT, f"{_describe(post, index)} in the token {token.text!r}")
    return doc if len(words) == len(doc) else Doc(doc.vocab, words=words, spaces=spaces)


def _span(
    doc: Doc, post: Post, index: int, edge: tuple[int, int], findings: Findings
) -> Span | None:
    span = doc.char_span(*edge, label=(post.entities or [])[index].label)
    if span is None:
        findings.lose(_LOST, _describe(post, index))
    return span


def _set_pairs(doc: Doc, post: Post, spans: list[Span | None], findings: Findings) -> None:
    if post.pairs is None:
        return
    kept = []
    for pair in post.pairs:
        head, tail = (spans[index] for index in pair)
        if head is None or tail is None:
            findings.lose(_LOST_PAIRS, f"{post.id}: {pair}")
        else:
            kept.append((head, tail))
    set_pairs(doc, kept)


def _set_relations(doc: Doc, post: Post, spans: list[Span | None], findings: Findings) -> None:
    kept = []
    for relation in post.relations or []:
        head, tail = spans[relation.head], spans[relation.tail]
        if head is None or tail is None:
            findings.lose(_LOST_RELATIONS, f"{post.id}: {relation.label}")
        else:
            kept.append(Relation(head, tail, relation.label, 1.0))
    # An empty list says that somebody looked and there is none.
    if post.relations is not None:
        doc._.mmcot_rel = kept


def labelled_fraction(
    rows: Sequence[Row], fraction: float, seed: int, first: Iterable[int] = ()
) -> list[Row]:
    """The same rows, of which `fraction` are `train` and the rest `unlabelled`; the labelled posts
    of a smaller fraction are among those of a larger one.

    The order in which rows become labelled is that of the row numbers `first`, then that of a
    draw by `seed` from the others. Rows of the splits dev and test stay as they are and do not
    count; so do those of `unlabelled` that `first` does not name.

    Raises UsageError for a fraction that is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise UsageError(Errors.E714.format(received=fraction))
    places = {row.number: place for place, row in enumerate(rows)}
    named = dict.fromkeys(places[number] for number in first)
    pool = [i for i, row in enumerate(rows) if row.post.split == "train" and i not in named]
    random.Random(seed).shuffle(pool)
    order = [*named, *pool]
    n_labelled = max(1, round(fraction * len(order)))
    splits: dict[int, Split] = dict.fromkeys(order[:n_labelled], "train")
    splits |= dict.fromkeys(order[n_labelled:], "unlabelled")
    return [
        row._replace(post=row.post.model_copy(update={"split": splits.get(i, row.post.split)}))
        for i, row in enumerate(rows)
    ]


def of_domains(rows: Sequence[Row], domains: Iterable[str]) -> list[Row]:
    """The rows whose posts are of one of the domains.

    Raises UsageError for a domain that no post is of.
    """
    wanted = set(domains)
    known = {row.post.domain for row in rows if row.post.domain is not None}
    if unknown := sorted(wanted - known):
        allowed = ", ".join(sorted(known)) or "none"
        raise UsageError(Errors.E716.format(received=", ".join(unknown), allowed=allowed))
    return [row for row in rows if row.post.domain in wanted]


def parse_renaming(texts: Iterable[str]) -> dict[str, str]:
    """OLD=NEW each. Raises UsageError for what has another form or names one label twice."""
    names: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not (old and equals and new) or old in names:
            raise UsageError(Errors.E715.format(received=text))
        names[old] = new
    return names


def rename_labels(rows: Sequence[Row], names: Mapping[str, str]) -> list[Row]:
    """The rows with entity labels under their new names. Raises MMCoTError where no entity has a
    label that is to be renamed."""
    found = {entity.label for row in rows for entity in row.post.entities or ()}
    if unknown := sorted(names.keys() - found):
        problem = f"no entity has the label {', '.join(unknown)}"
        raise MMCoTError(
            Errors.E207.format(
                path="--rename-label",
                problem=problem,
                expected=f"one of the labels {', '.join(sorted(found)) or 'none'}",
            )
        )
    renamed = []
    for row in rows:
        if row.post.entities:
            entities = [
                entity.model_copy(update={"label": names.get(entity.label, entity.label)})
                for entity in row.post.entities
            ]
            row = row._replace(post=row.post.model_copy(update={"entities": entities}))
        renamed.append(row)
    return renamed
