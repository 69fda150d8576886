"""An LLM's conclusions beside gold: scored like what a pipeline finds, and where the two differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import filter_spans

from ..corpus.docbin import make_post
from ..corpus.extensions import copy_tokens, set_relations
from ..corpus.rows import Findings
from ..elicitation.conclusion import locate_conclusion
from ..errors import Errors, MMCoTError
from ..files import replace_file
from ..model.knowledge import get_concluded_entities, get_concluded_relations
from ..types import (
    ID_KEY,
    KNOWLEDGE_KEY,
    NO_RELATION,
    RELATIONS_KEY,
    SURENESS,
    Answers,
    Entity,
    Relation,
    Sureness,
)
from .evaluate import score_found_entities
from .predictions import Predicted, predict_example, write_predictions
from .scorers import Pair, list_judged_pairs, score_relations
from .scores import compute_prf, count_labels, pair_overlapping

_GROUPS: Mapping[str, tuple[Sureness, ...]] = {"sure": ("high",), "unsure": ("medium", "low")}


class Concluded(NamedTuple):
    """A Doc and what an LLM concludes on it.

    example: the reference is the Doc; the predicted Doc has the concluded entities and relations,
        or the gold entities where relations alone were asked for. record: the same as predictions.
    entities: how sure the LLM is of an entity, by its character offsets.
    pairs: label and sureness by the character offsets of a judged pair of gold mentions; None where
        no relations were asked for, or none are labelled.
    """

    example: Example
    record: Predicted
    entities: Mapping[tuple[int, int], Sureness]
    pairs: Mapping[Pair, tuple[str, Sureness]] | None


def attach_conclusions(docs: Iterable[Doc], answers: Mapping[str, Answers]) -> Iterator[Doc]:
    """The Docs, each with the conclusion that the answers have on its id instead of its own."""
    for doc in docs:
        data: dict[Any, Any] = doc.user_data
        name = str(data.get(ID_KEY))
        known = {**(data.get(KNOWLEDGE_KEY) or {}), "conclusion": None}
        if name in answers:
            post = make_post(doc, name, Path(name), Findings())
            located = locate_conclusion(answers[name], post).model_dump(exclude_none=True)
            known["conclusion"] = located.get("conclusion")
        data[KNOWLEDGE_KEY] = known
        yield doc


def evaluate_conclusions(
    docs: Iterable[Doc],
    *,
    predictions: str | Path | None = None,
    disagreements: str | Path | None = None,
    source: object = "the docs",
) -> dict[str, Any]:
    """Score the conclusions in the knowledge of labelled Docs. Docs without one do not count.

    predictions, disagreements: files to write the conclusions to, as `evaluate` writes predictions,
        and the places where they differ from gold, as `list_disagreements` finds them.
    source: what messages call the Docs.

    Returns the metrics of `score_conclusions`, `docs`, and `docs_with_conclusion`.

    Raises MMCoTError where no Doc has both gold labels and a conclusion about them, and where a
    file cannot be written.
    """
    docs = list(docs)
    found = [one for one in collect_conclusions(docs) if one is not None]
    metrics = score_conclusions(found)
    if not metrics:
        raise MMCoTError(Errors.E809.format(path=source))
    if predictions is not None:
        write_predictions(Path(predictions), (one.record for one in found))
    if disagreements is not None:
        with replace_file(Path(disagreements)) as temporary:
            lines = (json.dumps(row, ensure_ascii=False) for row in list_disagreements(found))
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {**metrics, "docs": len(docs), "docs_with_conclusion": len(found)}


def collect_conclusions(docs: Iterable[Doc]) -> list[Concluded | None]:
    """The conclusion in the knowledge of each Doc, None for a Doc without one."""
    return [_collect_conclusion(doc, number) for number, doc in enumerate(docs)]


def _collect_conclusion(doc: Doc, number: int) -> Concluded | None:
    entities, relations = get_concluded_entities(doc), get_concluded_relations(doc)
    if entities is None and relations is None:
        return None
    predicted = copy_tokens(doc, [ID_KEY])
    if entities is None:
        spans = [Span(predicted, ent.start, ent.end, ent.label_) for ent in doc.ents]
    else:
        spans = [Span(predicted, start, end, label) for start, end, label, _ in entities]
    predicted.set_ents(filter_spans(spans), default="outside")
    sure = {
        (doc[start].idx, doc[end - 1].idx + len(doc[end - 1])): sureness
        for start, end, _, sureness in entities or ()
    }
    pairs = None
    if relations is not None:
        mentions, gold = _index_mentions(predicted), _index_mentions(doc)
        stated = [c for c in relations if {c.head, c.tail} <= mentions.keys()]
        set_relations(
            predicted,
            [
                Relation(mentions[c.head], mentions[c.tail], c.label, 1.0)
                for c in stated
                if c.label != NO_RELATION
            ],
        )
        if RELATIONS_KEY in doc.user_data:
            judged = list_judged_pairs(doc)
            pairs = {
                pair: (c.label, c.sure)
                for c in relations
                if {c.head, c.tail} <= gold.keys()
                and (pair := _get_pair(gold[c.head], gold[c.tail])) in judged
            }
    example = Example(predicted, doc)
    record = predict_example(example, number, entities is not None, scored=False)
    return Concluded(example, record, sure, pairs)


def _index_mentions(doc: Doc) -> dict[int, Span]:
    """The entities of a Doc by the tokens in them."""
    return {token.i: ent for ent in doc.ents for token in ent}


def _get_pair(head: Span, tail: Span) -> Pair:
    return head.start_char, head.end_char, tail.start_char, tail.end_char


def score_conclusions(found: Iterable[Concluded]) -> dict[str, Any]:
    """The metrics that `evaluate` describes, as far as they need neither scores nor a run. Those of
    what the LLM is sure of (high) and what it is not (medium, low) stand apart: `ents_sure_p`,
    `_r`, `_f`, `_per_type`, `_n` (how many), `ents_unsure_*`; and `rel_sure_*`, `rel_unsure_*` on
    gold mentions. Empty where nothing is labelled that was asked for."""
    found = list(found)
    metrics: dict[str, Any] = {}
    labelled = [one for one in found if one.record.gold is not None]
    if labelled:
        examples, records = [one.example for one in labelled], [one.record for one in labelled]
        metrics |= score_found_entities(examples, records)
        metrics |= _score_by_sureness("ents", map(_list_entities, labelled))
    related = [one for one in found if one.pairs is not None]
    if related:
        items = list(map(_list_relations, related))
        proposals = [[(*pair, label, 1.0) for pair, label in stated] for stated, _ in items]
        metrics |= score_relations([one.example for one in related], on_gold_mentions=proposals)
        metrics |= _score_by_sureness("rel", items)
    return metrics


# What an LLM states, each (place, label), with its sureness, and what is gold.
_Items = tuple[Mapping[tuple[Any, str], Sureness], set[tuple[Any, str]]]


def _list_entities(one: Concluded) -> _Items:
    stated = {
        ((e.start, e.end), e.label): one.entities[e.start, e.end] for e in one.record.entities
    }
    return stated, {((e.start, e.end), e.label) for e in one.record.gold or ()}


def _list_relations(one: Concluded) -> _Items:
    pairs = (one.pairs or {}).items()
    stated = {(pair, label): sure for pair, (label, sure) in pairs if label != NO_RELATION}
    return stated, {((*r.head, *r.tail), r.label) for r in one.record.gold_relations or ()}


def _score_by_sureness(prefix: str, rows: Iterable[_Items]) -> dict[str, Any]:
    rows = list(rows)
    metrics: dict[str, Any] = {}
    for group, levels in _GROUPS.items():
        counts = count_labels(
            ({item for item, sure in stated.items() if sure in levels}, gold)
            for stated, gold in rows
        )
        total = sum(counts.values(), start=numpy.zeros(3, dtype="int64"))
        name = f"{prefix}_{group}"
        metrics |= {**compute_prf(name, total), f"{name}_n": int(total[1])}
        metrics[f"{name}_per_type"] = {
            label: {key[-1]: value for key, value in compute_prf("", row).items()}
            | {"n": int(row[1])}
            for label, row in sorted(counts.items())
        }
    return metrics


def list_disagreements(found: Iterable[Concluded]) -> list[dict[str, Any]]:
    """Where the conclusion and gold differ, what the LLM is most sure of first: often gold is
    wrong. Rows have `id`, `text`, `gold`, `conclusion` and `sure`. Gold and conclusion are an
    entity (`mention`, `start`, `end`, `label`), a relation between gold mentions (`head`,
    `head_start`, `tail`, `tail_start`, `label`), or None. `sure` is None where the LLM says
    nothing."""
    rows: list[dict[str, Any]] = []
    for one in found:
        entities = _compare_entities(one) if one.record.gold is not None else ()
        for gold, conclusion, sure in [*entities, *_compare_relations(one)]:
            if gold != conclusion:
                head = {"id": one.record.id, "text": one.record.text}
                rows.append({**head, "gold": gold, "conclusion": conclusion, "sure": sure})
    return sorted(rows, key=lambda row: [*SURENESS, None].index(row["sure"]))


_Difference = tuple[dict[str, Any] | None, dict[str, Any] | None, Sureness | None]


def _compare_entities(one: Concluded) -> Iterator[_Difference]:
    for gold, stated in pair_overlapping(one.record.gold or (), one.record.entities):
        sure = None if stated is None else one.entities[stated.start, stated.end]
        yield _describe(one, gold), _describe(one, stated), sure


def _describe(one: Concluded, entity: Entity | None) -> dict[str, Any] | None:
    if entity is None:
        return None
    mention = one.record.text[entity.start : entity.end]
    return {"mention": mention, **entity.model_dump(include={"start", "end", "label"})}


def _compare_relations(one: Concluded) -> Iterator[_Difference]:
    gold = {(*r.head, *r.tail): r.label for r in one.record.gold_relations or ()}
    stated = one.pairs or {}
    for pair in sorted({*gold, *stated}) if one.pairs is not None else ():
        label, sure = stated.get(pair, (None, None))
        labels = (gold.get(pair), None if label == NO_RELATION else label)
        text, (h0, h1, t0, t1) = one.record.text, pair
        places = {"head": text[h0:h1], "head_start": h0, "tail": text[t0:t1], "tail_start": t0}
        labelled, found = ({**places, "label": name} if name else None for name in labels)
        yield labelled, found, sure
