"""Whether one pipeline is better than another on the same Docs: the paired bootstrap (Efron and
Tibshirani 1993; for NLP: Berg-Kirkpatrick, Burkett and Klein, EMNLP 2012).

Docs are drawn with replacement, the same draw for all pipelines, and F1 is computed over each draw:
the spread of the difference shows how much of it may be due to the choice of Docs, not to the
training seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy

from ..errors import Errors, MMCoTError
from ..messages import shown
from .predictions import Predicted, read_predictions
from .scores import Counts, compute_f, count_entities, count_relations, get_mentions

_MAX_DRAWS = 2_000_000  # held at a time: 16 MB of indexes


class Comparison(NamedTuple):
    """F1 from 0 to 1.

    low, high: the 95% interval of the difference, by percentiles of the resamples.
    p: two-sided: twice the smaller of the shares of resamples in which the difference is 0 or below
        and 0 or above, at most 1.
    """

    docs: int
    baseline_f: float
    student_f: float
    difference: float
    low: float
    high: float
    p: float


def compare_files(
    baseline: Path, student: Path, *, resamples: int = 10_000, seed: int = 0
) -> dict[str, Comparison]:
    """Compare two predictions files: "ents" over the Docs labelled with entities, where both
    pipelines predict them, and "rel_e2e" over those labelled with relations, likewise.

    Raises MMCoTError where the files do not describe the same Docs, or neither can be compared.
    """
    first = read_predictions(baseline)
    matched = match_predictions(first, read_predictions(student), paths=(baseline, student))
    rows = list(zip(first, matched, strict=True))
    entities = [row for row in rows if all(doc.gold is not None for doc in row)]
    relations = [row for row in rows if all(doc.gold_relations is not None for doc in row)]
    if any(doc.relations is None for row in relations for doc in row):
        relations = []
    counts = {
        "ents": [count_entities(docs) for docs in zip(*entities, strict=True)],
        "rel_e2e": [count_relations(docs) for docs in zip(*relations, strict=True)],
    }
    compared = {
        task: compare_counts(*sides, resamples=resamples, seed=seed)
        for task, sides in counts.items()
        if sides
    }
    if not compared:
        raise MMCoTError(Errors.E802.format(path=baseline))
    return compared


def match_predictions(
    first: Sequence[Predicted], others: Sequence[Predicted], *, paths: tuple[Path, Path]
) -> list[Predicted]:
    """The Docs of `others` in the order of `first`. Both must have the same labels, except for
    entities or relations that one side has in no Doc.

    paths: the files of both, for messages.

    Raises MMCoTError where their ids, texts or labels differ.
    """
    by_id, ids = {doc.id: doc for doc in others}, {doc.id: doc for doc in first}
    differences = []
    for path, own, against in ((paths[0], ids, by_id), (paths[1], by_id, ids)):
        if alone := [doc_id for doc_id in own if doc_id not in against]:
            differences.append(f"only {path} has {shown(alone)}")
    if differences:
        raise MMCoTError(
            Errors.E800.format(first=paths[0], path=paths[1], differences="; ".join(differences))
        )
    matched = [by_id[doc.id] for doc in first]
    for part, get in _PARTS.items():
        sides = [get(doc) for doc in first], [get(doc) for doc in matched]
        if any(all(value is None for value in side) for side in sides):
            continue
        for doc, left, right in zip(first, *sides, strict=True):
            if left != right:
                raise MMCoTError(
                    Errors.E801.format(id=doc.id, part=part, first=paths[0], path=paths[1])
                )
    return matched


# What must be the same, under the name that a message gives it.
_PARTS: dict[str, Callable[[Predicted], object]] = {
    "text": lambda doc: doc.text,
    "set of labelled entities": lambda doc: None if doc.gold is None else get_mentions(doc.gold),
    "set of labelled relations": lambda doc: (
        doc.gold_relations and {(r.head, r.tail, r.label) for r in doc.gold_relations}
    ),
}


def compare_counts(
    baseline: Counts, student: Counts, *, resamples: int = 10_000, seed: int = 0
) -> Comparison:
    """Compare two pipelines by their counts on the same Docs, (docs, 3) each. A resample draws Docs
    once for both."""
    n_docs = len(baseline)
    baseline_f, student_f = (float(compute_f(counts.sum(axis=0))) for counts in (baseline, student))
    flat = numpy.concatenate([baseline, student], axis=1).astype("float64")
    generator = numpy.random.default_rng(seed)
    differences = []
    at_once = max(1, _MAX_DRAWS // n_docs)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = (
            generator.integers(n_docs, size=(rows, n_docs)) + n_docs * numpy.arange(rows)[:, None]
        )
        # How often each Doc was drawn, (rows, docs).
        weights = numpy.bincount(drawn.ravel(), minlength=rows * n_docs).reshape(rows, n_docs)
        scores = compute_f((weights.astype("float64") @ flat).reshape(rows, 2, 3))
        differences.append(scores[:, 1] - scores[:, 0])
    difference = numpy.concatenate(differences)
    low, high = numpy.quantile(difference, [0.025, 0.975])
    not_better, not_worse = (difference <= 0).mean(), (difference >= 0).mean()
    return Comparison(
        docs=n_docs,
        baseline_f=baseline_f,
        student_f=student_f,
        difference=student_f - baseline_f,
        low=float(low),
        high=float(high),
        p=float(min(1.0, 2 * min(not_better, not_worse))),
    )
