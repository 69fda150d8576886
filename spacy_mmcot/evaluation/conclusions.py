"""An LLM's conclusions beside gold: scored like what a pipeline finds, and where the two differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import filter_spans

from ..corpus.docbin import make_post
from ..corpus.extensions import PairOffsets, copy_tokens, list_relations, set_relations
from ..corpus.posts import Findings
from ..elicitation.conclusion import locate_conclusion
from ..errors import Errors, MMCoTError
from ..files import replace_file
from ..model.knowledge import get_concluded_entities, get_concluded_relations
from ..types import (
    ID_KEY,
    KNOWLEDGE_KEY,
    NO_RELATION,
    SURENESS,
    Answers,
    Entity,
    Relation,
    Sureness,
)
from .predictions import Predicted, list_judged_pairs, predict_example, write_predictions
from .scores import (
    Mention,
    get_mentions,
    pair_overlapping,
    score_entities,
    score_items,
    score_relations,
    score_seqeval,
)


class Concluded(NamedTuple):
    """A Doc and what an LLM concludes on it.

    example: the reference is the Doc; the predicted Doc has the concluded entities and relations,
        or the gold entities where relations alone were asked for. record: the same as predictions.
    entities: how sure the LLM is of each (start, end, label), characters.
    pairs: label and sureness for each judged pair of gold mentions that it concludes on; None where
        no relations were asked for, or none are labelled.
    """

    example: Example
    record: Predicted
    entities: Mapping[Mention, Sureness]
    pairs: Mapping[PairOffsets, tuple[str, Sureness]] | None


def attach_conclusions(docs: Iterable[Doc], answers: Mapping[str, Answers]) -> Iterator[Doc]:
    """The Docs, each with the conclusion that the answers have on its id instead of its own."""
    for doc in docs:
        name = str(doc.user_data.get(ID_KEY))
        known = {**(doc.user_data.get(KNOWLEDGE_KEY) or {}), "conclusion": None}
        if name in answers:
            post = make_post(doc, name, name, Findings())
            located = locate_conclusion(answers[name], post)[0].model_dump(exclude_none=True)
            known["conclusion"] = located.get("conclusion")
        doc.user_data[KNOWLEDGE_KEY] = known
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

    Returns the metrics of `score_conclusions`, `docs` and `docs_with_conclusion` among them.

    Raises MMCoTError where no Doc has both gold labels and a conclusion about them, and where a
    file cannot be written.
    """
    concluded = collect_conclusions(docs)
    found = [one for one in concluded if one is not None]
    metrics = score_conclusions(concluded)
    if not metrics:
        raise MMCoTError(Errors.E809.format(path=source))
    if predictions is not None:
        write_predictions(Path(predictions), [one.record for one in found])
    if disagreements is not None:
        write_disagreements(Path(disagreements), found)
    return metrics


def write_disagreements(path: Path, found: Iterable[Concluded]) -> None:
    """Write where the conclusions and gold differ, a JSON line each, as `list_disagreements` finds
    it. Raises MMCoTError where the file cannot be written."""
    lines = (json.dumps(row, ensure_ascii=False) for row in list_disagreements(found))
    with replace_file(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def collect_conclusions(docs: Iterable[Doc]) -> list[Concluded | None]:
    """The conclusion in the knowledge of each Doc, None for a Doc without one."""
    return [_collect_conclusion(doc, number) for number, doc in enumerate(docs)]


def _collect_conclusion(doc: Doc, number: int) -> Concluded | None:
    entities, relations = get_concluded_entities(doc), get_concluded_relations(doc)
    if entities is None and relations is None:
        return None
    predicted = copy_tokens(doc, [ID_KEY])
    ends = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    if entities is not None:
        ends = [(c.start, c.end, c.label) for c in entities]
    spans = [Span(predicted, start, end, label) for start, end, label in ends]
    predicted.set_ents(filter_spans(spans), default="outside")
    pairs = None
    if relations is not None:
        at, gold_at = _index_mentions(predicted), _index_mentions(doc)
        stated = [c for c in relations if c.label != NO_RELATION and {c.head, c.tail} <= at.keys()]
        set_relations(predicted, [Relation(at[c.head], at[c.tail], c.label, 1.0) for c in stated])
        if list_relations(doc) is not None:
            judged = list_judged_pairs(doc)
            known = [c for c in relations if {c.head, c.tail} <= gold_at.keys()]
            both = [(gold_at[c.head], gold_at[c.tail], (c.label, c.sure)) for c in known]
            pairs = {
                pair: said
                for head, tail, said in both
                if (pair := (head.start_char, head.end_char, tail.start_char, tail.end_char))
                in judged
            }
    example = Example(predicted, doc)
    record = predict_example(example, number, entities is not None, scored=False)
    kept = get_mentions(record.entities)
    sure = {
        mention: c.sure
        for c, span in zip(entities or (), spans, strict=False)
        if (mention := (span.start_char, span.end_char, c.label)) in kept
    }
    return Concluded(example, record, sure, pairs)


def _index_mentions(doc: Doc) -> dict[int, Span]:
    """The entities of a Doc by the tokens in them."""
    return {token.i: ent for ent in doc.ents for token in ent}


def score_conclusions(concluded: Sequence[Concluded | None]) -> dict[str, Any]:
    """The metrics that `evaluate` describes, as far as they need neither scores nor a run. Those of
    what the LLM is sure of (high) and what it is not (medium, low) stand apart: `ents_sure_p`,
    `_r`, `_f`, `_per_type`, `_n` (how many), `ents_unsure_*`; and `rel_sure_*`, `rel_unsure_*` on
    gold mentions. Also `docs`, and `docs_with_conclusion`. Empty where nothing is labelled that was
    asked for.

    concluded: as `collect_conclusions` returns them.
    """
    found = [one for one in concluded if one is not None]
    metrics: dict[str, Any] = {}
    labelled = [one for one in found if one.record.gold is not None]
    if labelled:
        examples = [one.example for one in labelled]
        metrics |= score_entities(examples) | score_seqeval(examples)
        items = [(one.entities, get_mentions(one.record.gold)) for one in labelled]
        metrics |= _score_by_sureness("ents", items)
    related = [(one, one.pairs) for one in found if one.pairs is not None]
    if related:
        stated = [
            {(*pair, label): sure for pair, (label, sure) in pairs.items() if label != NO_RELATION}
            for _, pairs in related
        ]
        gold = [
            {(*r.head, *r.tail, r.label) for r in one.record.gold_relations or ()}
            for one, _ in related
        ]
        metrics |= score_relations(
            [one.example for one, _ in related],
            on_gold_mentions=[[(*item, 1.0) for item in items] for items in stated],
        )
        metrics |= _score_by_sureness("rel", list(zip(stated, gold, strict=True)))
    if metrics:
        metrics |= {"docs": len(concluded), "docs_with_conclusion": len(found)}
    return metrics


def _score_by_sureness(
    prefix: str, rows: Sequence[tuple[Mapping[Any, Sureness], set[Any]]]
) -> dict[str, Any]:
    """rows: what the LLM states in each Doc, and what is gold; items whose last element is the
    label."""
    metrics: dict[str, Any] = {}
    for group in ("sure", "unsure"):
        sides = [
            ({item for item, sure in stated.items() if (sure == "high") == (group == "sure")}, gold)
            for stated, gold in rows
        ]
        name = f"{prefix}_{group}"
        metrics |= score_items(name, sides)
        metrics[f"{name}_n"] = sum(len(stated) for stated, _ in sides)
        for label, scores in metrics[f"{name}_per_type"].items():
            scores["n"] = sum(item[-1] == label for stated, _ in sides for item in stated)
    return metrics


def list_disagreements(found: Iterable[Concluded]) -> list[dict[str, Any]]:
    """Where the conclusion and gold differ, what the LLM is most sure of first: often gold is
    wrong. Rows have `id`, `text`, `gold`, `conclusion` and `sure`. Gold and conclusion are an
    entity (`mention`, `start`, `end`, `label`), a relation between gold mentions (`head`,
    `head_start`, `tail`, `tail_start`, `label`), or None. `sure` is None where the LLM says
    nothing."""
    rows = [
        {
            "id": one.record.id,
            "text": one.record.text,
            "gold": gold,
            "conclusion": said,
            "sure": sure,
        }
        for one in found
        for gold, said, sure in _compare_with_gold(one)
        if gold != said
    ]
    return sorted(rows, key=lambda row: [*SURENESS, None].index(row["sure"]))


def _compare_with_gold(one: Concluded) -> Iterator[tuple[Any, Any, Any]]:
    """Gold, conclusion and sureness of all places that either names."""
    text = one.record.text
    if one.record.gold is not None:
        for gold_mention, mention in pair_overlapping(one.record.gold, one.record.entities):
            sure = mention and one.entities[mention.start, mention.end, mention.label]
            yield _describe(gold_mention, text), _describe(mention, text), sure
    if one.pairs is not None:
        gold = {(*r.head, *r.tail): r.label for r in one.record.gold_relations or ()}
        for place in sorted({*gold, *one.pairs}):
            label, sure = one.pairs.get(place, (NO_RELATION, None))
            h0, h1, t0, t1 = place
            ends = {"head": text[h0:h1], "head_start": h0, "tail": text[t0:t1], "tail_start": t0}
            said = None if label == NO_RELATION else {**ends, "label": label}
            yield {**ends, "label": gold[place]} if place in gold else None, said, sure


def _describe(entity: Entity | None, text: str) -> dict[str, Any] | None:
    if entity is None:
        return None
    mention = text[entity.start : entity.end]
    return {"mention": mention, **entity.model_dump(include={"start", "end", "label"})}
