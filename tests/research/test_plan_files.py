"""What the project's plans promise: equal steps, one change a row, no label of what is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from research.plan import Plan, Run, read_plan
from research.run import resolve_config

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def plan_of(name: str) -> Plan:
    return read_plan(REPOSITORY / "research" / "plans" / f"{name}.yaml")


def settings(plan: Plan, run: Run) -> dict[str, Any]:
    return resolve_config(run.config, {**plan.overrides, **run.overrides})


def steps(plan: Plan, run: Run) -> tuple[int, int, int]:
    training = settings(plan, run)["training"]
    rate = training["optimizer"]["learn_rate"]
    assert training["max_steps"] == rate["total_steps"]
    return rate["total_steps"], rate["warmup_steps"], training["eval_frequency"]


PLANS = ("low_resource", "ablation", "ablation_demo", "cross_domain", "cross_domain_demo")


@pytest.mark.parametrize("name", PLANS)
def test_no_run_picks_a_checkpoint(name: str) -> None:
    plan = plan_of(name)
    for run in plan.runs.values():
        total, warmup, frequency = steps(plan, run)
        assert frequency == total and warmup == total // 10
        assert not {plan.scored(run), *plan.also_on} & set(run.train)


@pytest.mark.parametrize("name", PLANS[1:])
def test_all_runs_of_a_plan_take_as_many_steps(name: str) -> None:
    plan = plan_of(name)
    assert len({steps(plan, run) for run in plan.runs.values()}) == 1


@pytest.mark.parametrize("part", [5, 10, 25, 50, 100])
def test_every_part_has_its_three_runs(part: int) -> None:
    plan = plan_of("low_resource")
    runs = [plan.runs[f"{kind}_{part}"] for kind in ("baseline", "teacher", "student")]
    assert len({steps(plan, run)[0] for run in runs}) == 1
    assert steps(plan, runs[0])[0] == (800 if part == 100 else 600)
    baseline, teacher, student = runs
    assert student.teacher == f"teacher_{part}" and teacher.knowledge
    assert baseline.train == teacher.train == student.train[:1]
    folder = "twitter2017/gold" if part == 25 else f"low_resource/{part}"
    assert student.train == [f"{folder}/train", f"{folder}/unlabelled"]
    assert settings(plan, teacher)["components"]["transformer"]["model"]["segment_length"] == 0


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def differences(plan: Plan, one: Run, other: Run) -> set[str]:
    """Which settings, and which of train and teacher, are not the same."""
    left, right = flat(settings(plan, one)), flat(settings(plan, other))
    found = {key for key in left.keys() | right.keys() if left.get(key) != right.get(key)}
    return found | {key for key in ("train", "teacher") if getattr(one, key) != getattr(other, key)}


@pytest.mark.parametrize("name", ["ablation", "ablation_demo"])
def test_a_row_is_one_change_from_the_student(name: str) -> None:
    plan = plan_of(name)
    student, teacher = plan.runs["student"], plan.runs["teacher"]
    model = "components.transformer.model"
    for row, run in plan.runs.items():
        found = differences(plan, run, teacher if row.startswith("teacher") else student)
        if row in ("student", "teacher"):
            assert not found
        elif row.startswith("student_") and row.split("_")[1] in ("static", "conditional"):
            assert found <= {f"{model}.prompt", f"{model}.prompt_length"} and found
        elif row == "student_no_pictures":
            # One switch; the settings of what is off say nothing.
            assert found and all(key.startswith(model) for key in found)
        elif row != "baseline":
            assert len(found) == 1, (row, found)


def test_no_label_of_the_target_is_read() -> None:
    plan = plan_of("cross_domain")
    for name, run in plan.runs.items():
        source, target = ("2017", "2015") if "from_2017" in name else ("2015", "2017")
        assert f"twitter{source}" in plan.scored(run)
        (abroad,) = run.also_on if run.knowledge else plan.scored_too(run)
        assert f"twitter{target}" in abroad
        assert f"twitter{source}" in run.train[0] and run.train[0].endswith("/train")
        assert all(part.endswith("/unlabelled") for part in run.train[1:])
    plan = plan_of("cross_domain_demo")
    for name, run in plan.runs.items():
        left_out = name.split("_")[2]
        assert plan.scored(run) == f"domains/{left_out}/labelled"
        labelled = [part for part in run.train if part.endswith("/train")]
        assert len(labelled) == 2 and not any(left_out in part for part in labelled)
        of_target = [part for part in run.train if left_out in part]
        assert of_target == ([f"domains/{left_out}/unlabelled"] if "target" in name else [])
