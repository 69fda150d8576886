"""Ambiguous names: surfaces that carry more than one entity label, where the words of a short post
may leave open what a picture shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy
from spacy.tokens import Doc

from spacy_mmcot.evaluation.predictions import Predicted
from spacy_mmcot.evaluation.scores import compute_prf, pair_entities


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
    counts = numpy.zeros(3, dtype="int64")
    predictions = list(predictions)
    for doc, sides in zip(predictions, pair_entities(predictions), strict=True):
        found, gold = (
            {m for m in side if doc.text[m[0] : m[1]].casefold() in surfaces} for side in sides
        )
        counts += (len(found & gold), len(found), len(gold))
    scores: dict[str, Any] = compute_prf("ambiguous", counts)
    return {**(scores if counts[2] else dict.fromkeys(scores)), "ambiguous_n": int(counts[2])}
