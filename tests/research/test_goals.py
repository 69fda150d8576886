from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from research.__main__ import app
from research.goals import GOALS


def line(plan: str, run: str, seed: int, **metrics: float) -> dict[str, Any]:
    return {
        **{"schema": 1, "experiment": plan, "run": run, "seed": seed, "evaluated_on": "dev"},
        **{"metrics": metrics, "also_on": {}, "other_pictures": {}},
    }


def test_goals_are_means_over_seeds_from_the_plans_own_lines(tmp_path: Path) -> None:
    lines = [
        line("conclusions", "t17_teacher_2", 1, ents_f=0.88),
        line("conclusions", "t17_teacher_2", 2, ents_f=0.90),
        line("conclusions", "t17_teacher_2", 1, ents_f=0.89),  # a later line of seed 1
        line("another", "t17_student", 1, ents_f=0.5),
        line("conclusions_rel", "mnre_teacher_2", 3, rel_f=0.61),
        line("conclusions_rel", "mnre_student_7200", 1, rel_f=0.53),
        line("push", "push_t17_850", 1, ents_f=0.83, ents_ece_calibrated=0.05)
        | {"also_on": {"t15-dev/dev": {"ents_f": 0.64}, "changed/swap": {"ents_f": 0.68}}},
        line("push", "push_t17_nolabels", 1, ents_f=0.82)
        | {"also_on": {"t15-dev/dev": {"ents_f": 0.67}}},
    ]
    ways = {
        "none": {"ents_f": 0.45},
        "foreign": {"ents_f": 0.44, "gate_auc": 0.9},
        "fitting": {"ents_f": 0.1},
    }
    lines.append(line("pictures_unseen", "eye", 1, ents_f=0.92) | {"other_pictures": ways})
    results, output = tmp_path / "results.jsonl", tmp_path / "goals.json"
    results.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    done = CliRunner().invoke(
        app, ["goals", "--results", str(results), "--json", str(output)], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "t17_teacher: 89.50 (seed 1: 89.00, seed 2: 90.00), goal 89" in done.stdout
    assert "t17_student: not run" in done.stdout
    assert "eye_gate_auc: 0.9000 (seed 1: 0.9000), goal 0.85" in done.stdout
    found = json.loads(output.read_text(encoding="utf-8"))
    assert list(found) == list(GOALS)
    assert found["t17_student"] is None
    eye = {name: value for name, value in found.items() if name.startswith("eye_")}
    assert eye == {
        **{"eye_own": 92.0, "eye_none": 45.0, "eye_foreign": 44.0, "eye_fitting": 10.0},
        "eye_gate_auc": 0.9,
    }
    pushed = {name: value for name, value in found.items() if name.startswith("push_") and value}
    assert pushed == {
        **{"push_t17_850": 83.0, "push_t17_nolabels": 82.0, "push_t15_transfer": 67.0},
        **{"push_mnre_800": 53.0, "push_ece": 5.0, "push_unseen_names": 68.0},
    }
    assert round(found["t17_teacher"], 6) == 89.5 and round(found["mnre_teacher"], 6) == 61.0
