"""The goals of the studies of conclusions, and how far the results reach them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

# Run: the score that counts and its goal in percent, None for a run that others are compared with.
GOALS: Mapping[str, tuple[str, float | None]] = {
    "t17_teacher": ("ents_f", 89.0),
    "t17_student": ("ents_f", 83.0),
    "t17_nolabels": ("ents_f", 82.0),
    "bc5_nolabels": ("ents_f", 83.1),
    "bc5_gold": ("ents_f", None),
    "mnre_teacher": ("rel_f", 60.0),
    "mnre_student": ("rel_f", 46.5),
    "mnre_student_7200": ("rel_f", 50.0),
}
_PLANS = ("conclusions", "conclusions_rel")


class Reached(NamedTuple):
    """A run's mean score over its seeds in percent, None without a result, and its goal."""

    score: float | None
    seeds: dict[int, float]
    goal: float | None


def measure_goals(results: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Reached]:
    """What the results of the plans `conclusions` and `conclusions_rel` say of each goal; of two
    lines of one run and seed the later counts."""
    lines = [line for plan in _PLANS for line in results.get(plan, ())]
    reached = {}
    for run, (score, goal) in GOALS.items():
        seeds = {line["seed"]: 100 * line["metrics"][score] for line in lines if line["run"] == run}
        reached[run] = Reached(mean(seeds.values()) if seeds else None, seeds, goal)
    return reached
