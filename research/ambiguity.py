"""Ambiguous names: surfaces that carry more than one entity label, where the words of a short post
may leave open what a picture shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from spacy.tokens import Doc

from spacy_mmcot.evaluation.predictions import Predicted
from spacy_mmcot.evaluation.scores import score_names


def find_ambiguous_surfaces(docs: Iterable[Doc]) -> set[str]:
    """The case-folded texts of entities that carry more than one label over the Docs."""
    labels: dict[str, set[str]] = defaultdict(set)
    for doc in docs:
        for ent in doc.ents:
            labels[ent.text.casefold()].add(ent.label_)
    return {surface for surface, found in labels.items() if len(found) > 1}


def score_ambiguous(predictions: Iterable[Predicted], surfaces: set[str]) -> dict[str, Any]:
    """Strict scores over the mentions of these surfaces, gold and predicted ones: `ambiguous_p`,
    `ambiguous_r` and `ambiguous_f`, None where gold has no such mention, and `ambiguous_n`, how
    many it has. Docs without entity annotation do not count."""
    return score_names(predictions, "ambiguous", lambda name: name[0] in surfaces)
