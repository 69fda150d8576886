"""What an experiment plan may say, and in which order its runs come."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.plan import Plan, read_plan
from research.run import resolve_config
from spacy_mmcot.errors import MMCoTError

REPOSITORY = Path(__file__).parents[2]
PLANS = sorted((REPOSITORY / "research" / "plans").glob("*.yaml"))

PLAN = """
name: small
seeds: [1, 2]
runs:
  student: {config: student.cfg, train: [train, unlabelled], teacher: teacher}
  baseline: {config: gold.cfg, train: [train]}
  teacher: {config: teacher.cfg, train: [train], knowledge: true}
  late: {config: student.cfg, train: [train], teacher: baseline, seeds: [3]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return read_plan(write(tmp_path, PLAN))


def test_teachers_come_first_seed_by_seed(plan: Plan) -> None:
    assert list(plan.order()) == [
        *(("teacher", 1), ("student", 1), ("baseline", 1)),
        *(("teacher", 2), ("student", 2), ("baseline", 2)),
        *(("baseline", 3), ("late", 3)),
    ]


def test_every_student_follows_its_teacher_once(plan: Plan) -> None:
    order = list(plan.order())
    assert len(order) == len(set(order))
    for name, seed in order:
        teacher = plan.runs[name].teacher
        if teacher is not None:
            assert order.index((teacher, seed)) < order.index((name, seed))


def test_teachers_of_several_seeds_come_once(tmp_path: Path) -> None:
    more = (
        "  many: {config: student.cfg, train: [train], teacher: teacher, teacher_seeds: [2, 1]}\n"
    )
    plan = read_plan(write(tmp_path, PLAN + more))
    assert plan.runs["many"].teachers(1) == [("teacher", 2), ("teacher", 1)]
    assert plan.runs["student"].teachers(2) == [("teacher", 2)]
    assert plan.runs["baseline"].teachers(1) == []
    assert list(plan.order(only=["many", "student"])) == [
        *(("teacher", 2), ("teacher", 1), ("many", 1), ("student", 1)),
        *(("many", 2), ("student", 2)),
    ]


def test_teacher_seeds_need_a_teacher(tmp_path: Path) -> None:
    more = "  lonely: {config: student.cfg, train: [train], teacher_seeds: [1]}\n"
    with pytest.raises(MMCoTError, match=r"E703.*teacher_seeds \[1\] without a teacher"):
        read_plan(write(tmp_path, PLAN + more))


def test_only_some_runs_bring_their_teachers(plan: Plan) -> None:
    assert list(plan.order(only=["student"])) == [
        *(("teacher", 1), ("student", 1), ("teacher", 2), ("student", 2)),
    ]


def test_only_some_seeds(plan: Plan) -> None:
    assert list(plan.order(only=["teacher"], seeds=[2])) == [("teacher", 2)]
    assert list(plan.order(seeds=[3])) == [("baseline", 3), ("late", 3)]


def test_how_pictures_are_read(plan: Plan, tmp_path: Path) -> None:
    assert plan.runs["student"].pictures == ["none"]
    assert plan.ambiguous == []
    text = PLAN.replace("knowledge: true", "pictures: [real, none, shuffled, black]")
    plan = read_plan(write(tmp_path, f"{text}ambiguous: [train]\n"))
    assert plan.runs["teacher"].pictures == ["real", "none", "shuffled", "black"]
    assert plan.ambiguous == ["train"]


def test_an_unknown_run(plan: Plan) -> None:
    with pytest.raises(MMCoTError, match=r"\[E702\] 'pupil' .*'student', 'baseline'"):
        list(plan.order(only=["pupil"]))


def test_an_unknown_seed(plan: Plan) -> None:
    with pytest.raises(MMCoTError, match=r"\[E706\] .* seed 7\. Allowed: \[1, 2, 3\]"):
        list(plan.order(seeds=[1, 7]))


@pytest.mark.parametrize("path", PLANS, ids=[path.stem for path in PLANS])
def test_the_plans_of_the_project(path: Path) -> None:
    plan = read_plan(path)
    assert list(plan.order())
    for run in plan.runs.values():
        # Every override names a setting of the run's config.
        resolve_config(run.config, {**plan.overrides, **run.overrides})


def test_there_are_plans() -> None:
    assert PLANS


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match=r"\[E100\] .*absent\.yaml"):
        read_plan(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "dict"),
        ("name: [", "YAML"),
        ("name: x\nruns: {\ta: 1}", "YAML"),
        ("- a\n- b\n", "dict"),
        ("name: x\n", "runs"),
        ("name: x\nruns: {a: {config: a.cfg}}\n", "train"),
        ("name: x\nruns: {a: {config: a.cfg, train: train}}\n", "train"),
        ("name: x\nruns: {a: {config: a.cfg, train: [train], techer: b}}\n", "techer"),
        ("name: x\nseed: [1]\nruns: {a: {config: a.cfg, train: [train]}}\n", "seed"),
        ("name: x\nruns: {a: {config: a.cfg, train: [train], teacher: b}}\n", "no run 'b'"),
        ("name: x\nruns: {a: {config: a.cfg, train: [train], teacher: a}}\n", "a <- a"),
        ("name: x\nruns: {a: {config: a.cfg, train: [t], pictures: [grey]}}\n", "'shuffled'"),
        ("name: x\nruns: {a: {config: a.cfg, train: [t], pictures: []}}\n", "at least 1"),
        ("name: x\nruns: {a: {config: a.cfg, train: [t], pictures: real}}\n", "pictures"),
        ("name: x\nruns: {a: {config: a.cfg, train: [t], pictures: [real, real]}}\n", "twice"),
        (
            "name: x\nruns:\n  a: {config: a.cfg, train: [t], teacher: b}\n"
            "  b: {config: a.cfg, train: [t], teacher: a}\n",
            "a <- b <- a",
        ),
    ],
)
def test_what_is_no_plan(text: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(MMCoTError) as raised:
        read_plan(path)
    message = str(raised.value)
    assert message.startswith(f"[E703] {path}")
    assert reason in message
    assert len(message.splitlines()) == 1


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(b"name: \xff\xfe\x00")
    with pytest.raises(MMCoTError, match="E703"):
        read_plan(path)
