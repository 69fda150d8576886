"""Whether one pipeline is better than another on the same Docs: the paired bootstrap (Efron and
Tibshirani 1993; for NLP: Berg-Kirkpatrick, Burkett and Klein, EMNLP 2012).

Docs are drawn with replacement, the same draw for all pipelines, and F1 is computed over each draw:
the spread of the difference shows how much of it may be due to the choice of Docs. The spread over
training seeds is another matter: compare several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from ..errors import Errors, MMCoTError
from .predictions import Predicted, read_predictions
from .scores import Counts, compute_f, count_entities, count_relations, get_mentions

_SHOWN = 3  # ids in a message
_MAX_DRAWS = 2_000_000  # held at a time: 16 MB of indexes


class Comparison(NamedTuple):
    """F1 from 0 to 1, means over the seeds.

    low, high: the 95% interval of the difference, by percentiles of the resamples.
    p_one_sided: the share of resamples in which the student is not better: its F1 minus the
        baseline's is 0 or below.
    p_two_sided: twice the smaller of that share and the share in which the difference is 0 or
        above, at most 1.
    """

    docs: int
    baseline_f: float
    student_f: float
    difference: float
    low: float
    high: float
    p_one_sided: float
    p_two_sided: float
    baseline_by_seed: list[float]
    student_by_seed: list[float]


def compare_files(
    baselines: Sequence[Path], students: Sequence[Path], *, resamples: int = 10_000, seed: int = 0
) -> dict[str, Comparison]:
    """Compare predictions files, one a training seed: "ents" over the Docs labelled with entities,
    where every pipeline predicts them, and "rel_e2e" over those labelled with relations, likewise.

    Raises MMCoTError where the files do not describe the same Docs, or neither can be compared.
    """
    paths = [*baselines, *students]
    first, *others = [read_predictions(path) for path in paths]
    matched = [first] + [
        match_predictions(first, docs, paths=(paths[0], path))
        for path, docs in zip(paths[1:], others, strict=True)
    ]
    rows = list(zip(*matched, strict=True))
    entities = [row for row in rows if all(doc.gold is not None for doc in row)]
    relations = [row for row in rows if all(doc.gold_relations is not None for doc in row)]
    if any(doc.relations is None for row in relations for doc in row):
        relations = []
    compared = {}
    for task, labelled, count in (
        ("ents", entities, count_entities),
        ("rel_e2e", relations, count_relations),
    ):
        if labelled:
            counts = [count(docs) for docs in zip(*labelled, strict=True)]
            n = len(baselines)
            compared[task] = compare_counts(counts[:n], counts[n:], resamples=resamples, seed=seed)
    if not compared:
        raise MMCoTError(Errors.E802.format(path=paths[0]))
    return compared


def match_predictions(
    first: Sequence[Predicted], others: Sequence[Predicted], *, paths: tuple[Path, Path]
) -> list[Predicted]:
    """The Docs of `others` in the order of `first`. Both must have the same labels, except for
    entities or relations that one side has in no Doc.

    paths: the files of both, for messages.

    Raises MMCoTError where their ids, texts or labels differ.
    """
    by_id = {doc.id: doc for doc in others}
    _check_ids({doc.id: doc for doc in first}, by_id, paths)
    matched = [by_id[doc.id] for doc in first]
    for part, get in _PARTS.items():
        own, theirs = [get(doc) for doc in first], [get(doc) for doc in matched]
        if all(value is None for value in own) or all(value is None for value in theirs):
            continue
        for doc, left, right in zip(first, own, theirs, strict=True):
            if left != right:
                raise MMCoTError(
                    Errors.E801.format(id=doc.id, part=part, first=paths[0], path=paths[1])
                )
    return matched


def _check_ids(
    first: Mapping[str, Predicted], other: Mapping[str, Predicted], paths: tuple[Path, Path]
) -> None:
    differences = []
    for path, own, against in zip(paths, (first, other), (other, first), strict=True):
        alone = [doc_id for doc_id in own if doc_id not in against]
        if alone:
            shown = ", ".join(map(repr, alone[:_SHOWN]))
            more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
            differences.append(f"only {path} has {shown}{more}")
    if differences:
        raise MMCoTError(
            Errors.E800.format(first=paths[0], path=paths[1], differences="; ".join(differences))
        )


def _get_gold_relations(doc: Predicted) -> object:
    if doc.gold_relations is None:
        return None
    return {(r.head, r.tail, r.label) for r in doc.gold_relations}


# What must be the same, under the name that a message gives it.
_PARTS: dict[str, Callable[[Predicted], object]] = {
    "text": lambda doc: doc.text,
    "set of labelled entities": lambda doc: None if doc.gold is None else get_mentions(doc.gold),
    "set of labelled relations": _get_gold_relations,
}


def compare_counts(
    baselines: Sequence[Counts],
    students: Sequence[Counts],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare pipelines by their counts on the same Docs, (docs, 3) each, one array a training
    seed. A resample draws Docs once for all of them and takes the mean of F1 over the seeds."""
    counts = numpy.stack([*baselines, *students])
    own = compute_f(counts.sum(axis=1))
    n = len(baselines)
    differences = numpy.concatenate(
        [
            _compute_differences(weights, counts, n)
            for weights in _resample(counts.shape[1], resamples, numpy.random.default_rng(seed))
        ]
    )
    low, high = numpy.quantile(differences, [0.025, 0.975])
    not_better, not_worse = (differences <= 0).mean(), (differences >= 0).mean()
    baseline_f, student_f = own[:n].mean(), own[n:].mean()
    return Comparison(
        docs=counts.shape[1],
        baseline_f=float(baseline_f),
        student_f=float(student_f),
        difference=float(student_f - baseline_f),
        low=float(low),
        high=float(high),
        p_one_sided=float(not_better),
        p_two_sided=float(min(1.0, 2 * min(not_better, not_worse))),
        baseline_by_seed=own[:n].tolist(),
        student_by_seed=own[n:].tolist(),
    )


def _resample(
    n_docs: int, resamples: int, generator: numpy.random.Generator
) -> Iterator[NDArray[numpy.float64]]:
    """How often each Doc was drawn: (some resamples, docs) arrays, `resamples` rows in all."""
    at_once = max(1, _MAX_DRAWS // n_docs)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(n_docs, size=(rows, n_docs))
        drawn += n_docs * numpy.arange(rows)[:, None]
        weights = numpy.bincount(drawn.ravel(), minlength=rows * n_docs)
        yield weights.reshape(rows, n_docs).astype("float64")


def _compute_differences(
    weights: NDArray[numpy.float64], counts: Counts, n_baselines: int
) -> NDArray[numpy.float64]:
    """weights: (resamples, docs); counts: (pipelines, docs, 3). Returns (resamples,)."""
    pipelines, n_docs, _ = counts.shape
    flat = counts.transpose(1, 0, 2).reshape(n_docs, pipelines * 3).astype("float64")
    scores = compute_f((weights @ flat).reshape(len(weights), pipelines, 3))
    difference = scores[:, n_baselines:].mean(axis=1) - scores[:, :n_baselines].mean(axis=1)
    # Equal means of different seeds may differ in their last bits.
    return numpy.round(difference, 12)
