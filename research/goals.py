"""The goals of the studies: of conclusions, of students with more text and steps, and of pictures
that no training showed; and how far the results reach them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

# Run: the score that counts and its goal, None for a run that others are compared with. F1 is in
# percent, the area under the curve from 0 to 1.
GOALS: Mapping[str, tuple[str, float | None]] = {
    "t17_teacher": ("ents_f", 89.0),
    "t17_student": ("ents_f", 83.0),
    "t17_nolabels": ("ents_f", 82.0),
    "bc5_nolabels": ("ents_f", 83.1),
    "bc5_gold": ("ents_f", None),
    "mnre_teacher": ("rel_f", 60.0),
    "mnre_student": ("rel_f", 46.5),
    "mnre_student_7200": ("rel_f", 50.0),
    "push_t17_850": ("ents_f", 84.0),
    "push_t17_baseline": ("ents_f", None),
    "push_t17_nolabels": ("ents_f", 83.0),
    "push_t15_transfer": ("ents_f", 66.0),
    "push_bc5_nolabels": ("ents_f", 86.0),
    "push_mnre_800": ("rel_f", 50.0),
    "eye_own": ("ents_f", 90.0),
    "eye_none": ("ents_f", None),
    "eye_foreign": ("ents_f", None),
    "eye_fitting": ("ents_f", None),
    "eye_gate_auc": ("gate_auc", 0.85),
}
_PLANS = ("conclusions", "conclusions_rel", "push")
_TRANSFER = "t15-dev/dev"  # no label of whose corpus was read
# Of one run of the plan `pictures_unseen`: the way in which it read the pictures.
_EYE = {
    **{f"eye_{way}": way for way in ("none", "foreign", "fitting")},
    **{"eye_own": "real", "eye_gate_auc": "foreign"},
}


class Reached(NamedTuple):
    """A run's mean score over its seeds, None without a result, and its goal."""

    score: float | None
    seeds: dict[int, float]
    goal: float | None


def measure_goals(results: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Reached]:
    """What the results of the plans say of each goal; of two lines of one run and seed the later
    counts."""
    lines = [line for plan in _PLANS for line in results.get(plan, ())]
    for line in list(lines):
        # One training, two goals.
        if line["run"] == "mnre_student_7200":
            lines.append({**line, "run": "push_mnre_800"})
        if line["run"] == "push_t17_850" and _TRANSFER in line["also_on"]:
            other = {"run": "push_t15_transfer", "metrics": line["also_on"][_TRANSFER]}
            lines.append({**line, **other})
    for line in results.get("pictures_unseen", ()):
        ways = {"real": line["metrics"], **line["other_pictures"]}
        lines += [{**line, "run": name, "metrics": ways[way]} for name, way in _EYE.items()]
    reached = {}
    for run, (score, goal) in GOALS.items():
        scale = 1 if score == "gate_auc" else 100
        found = [line for line in lines if line["run"] == run]
        seeds = {line["seed"]: scale * line["metrics"][score] for line in found}
        reached[run] = Reached(mean(seeds.values()) if seeds else None, seeds, goal)
    return reached
