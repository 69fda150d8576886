"""Ambiguous names: surfaces that carry more than one entity label, where the words of a short post
may leave open what a picture shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span
    from spacy.training import Example


def ambiguous_surfaces(docs: Iterable[Doc]) -> set[str]:
    """The lower-cased texts of entities that carry more than one label over the Docs."""
    labels: dict[str, set[str]] = defaultdict(set)
    for doc in docs:
        for ent in doc.ents:
            labels[_surface(ent)].add(ent.label_)
    return {surface for surface, found in labels.items() if len(found) > 1}


def ambiguous_scores(examples: Iterable[Example], surfaces: set[str]) -> dict[str, Any]:
    """Strict scores over the mentions of these surfaces, gold and predicted ones: `ambiguous_p`,
    `ambiguous_r` and `ambiguous_f`, None where gold has no such mention, and `ambiguous_n`, how
    many it has. Docs without entity annotation do not count."""
    from spacy.scorer import PRFScore

    score = PRFScore()
    for example in examples:
        if example.reference.has_annotation("ENT_IOB"):
            gold, predicted = (
                {(e.start_char, e.end_char, e.label_) for e in doc.ents if _surface(e) in surfaces}
                for doc in (example.reference, example.predicted)
            )
            score.score_set(predicted, gold)
    n = score.tp + score.fn
    return {
        "ambiguous_p": score.precision if n else None,
        "ambiguous_r": score.recall if n else None,
        "ambiguous_f": score.fscore if n else None,
        "ambiguous_n": n,
    }


def _surface(span: Span) -> str:
    return span.text.lower()
