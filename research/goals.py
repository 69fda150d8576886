"""The goals of the studies: of conclusions, of students with more text and steps, and of pictures
that no training showed; and how far the results reach them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

_PLANS = ("conclusions", "conclusions_rel", "push", "pictures_unseen")


class Goal(NamedTuple):
    """Which score of which run counts: `of` the further file that it was scored on, or of the way
    in which it read pictures. goal: the least score, of `ents_ece_calibrated` the greatest; None
    for what others are compared with."""

    run: str
    goal: float | None
    score: str = "ents_f"
    of: str = ""


# F1 and calibration error are in percent, the area under the curve from 0 to 1.
GOALS: Mapping[str, Goal] = {
    "t17_teacher": Goal("t17_teacher_2", 89.0),
    "t17_student": Goal("t17_student", 83.0),
    "t17_nolabels": Goal("t17_nolabels", 82.0),
    "bc5_nolabels": Goal("bc5_nolabels", 83.1),
    "bc5_gold": Goal("bc5_gold", None),
    "mnre_teacher": Goal("mnre_teacher_2", 60.0, "rel_f"),
    "mnre_student": Goal("mnre_student", 46.5, "rel_f"),
    "mnre_student_7200": Goal("mnre_student_7200", 50.0, "rel_f"),
    "push_t17_850": Goal("push_t17_850", 84.0),
    "push_t17_baseline": Goal("push_t17_baseline", None),
    "push_t17_nolabels": Goal("push_t17_nolabels", 83.0),
    "push_t17_all": Goal("push_t17_all", 86.0),
    "push_t15_25": Goal("push_t15_25", 71.0),
    "push_t15_all": Goal("push_t15_all", 73.0),
    # No label of Twitter-2015 was read, of Twitter-2017 the 40 examples.
    "push_t15_transfer": Goal("push_t17_nolabels", 66.0, of="t15-dev/dev"),
    "push_mnre_800": Goal("mnre_student_7200", 50.0, "rel_f"),
    "push_mnre_all": Goal("mnre_student_all", 54.0, "rel_f"),
    "push_bc5_nolabels": Goal("push_bc5_nolabels", 86.0),
    "push_ece": Goal("push_t17_850", 4.0, "ents_ece_calibrated"),
    "push_unseen_names": Goal("push_t17_850", 68.0, of="changed/swap"),
    "eye_own": Goal("eye", 90.0),
    "eye_none": Goal("eye", None, of="none"),
    "eye_foreign": Goal("eye", None, of="foreign"),
    "eye_fitting": Goal("eye", None, of="fitting"),
    "eye_gate_auc": Goal("eye", 0.85, "gate_auc", "foreign"),
}


class Reached(NamedTuple):
    """A goal's mean score over its seeds, None without a result, and the goal."""

    score: float | None
    seeds: dict[int, float]
    goal: float | None


def measure_goals(results: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Reached]:
    """What the results of the plans say of each goal; of two lines of one run and seed the later
    counts."""
    lines = [line for plan in _PLANS for line in results.get(plan, ())]
    reached = {}
    for name, (run, goal, score, of) in GOALS.items():
        scale = 1 if score == "gate_auc" else 100
        seeds = {}
        for line in lines:
            measured = {"": line["metrics"], **line["also_on"], **line["other_pictures"]}
            if line["run"] == run and score in measured.get(of, {}):
                seeds[line["seed"]] = scale * measured[of][score]
        reached[name] = Reached(mean(seeds.values()) if seeds else None, seeds, goal)
    return reached
