"""What an experiment consists of, read from a YAML file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pydantic
import srsly

from research.errors import StudyErrors
from spacy_mmcot.errors import Errors, MMCoTError

from .picture_ways import Way

CONCLUSIONS = "conclusions"  # in the place of a teacher


class Run(pydantic.BaseModel):
    """One row of the table: a training config, what to change in it, and what to train on.

    train: names of corpus files, with their folders where they lie in some ("gold/train").
    teacher: the run whose pipeline labels them softly first, or "conclusions" for the LLM's own
        labels. teacher_seeds: label with the mean of the teacher's pipelines of these seeds, not
        with that of the run's own seed.
    knowledge: the pipeline reads the docs' knowledge, also when it is evaluated.
    pictures: the ways in which the plan's evaluation corpus is read, each evaluated; the first is
        the run's own figure, the others are rows of their own.
    evaluate_on: the corpus file that is scored, where it is another than the plan's.
    also_on: paths of further files to evaluate on, from this folder or absolute, pictures read in
        the first way.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    config: str
    train: list[str]
    teacher: str | None = None
    teacher_seeds: list[int] = []
    prompt_length: int = 0
    knowledge: bool = False
    overrides: dict[str, Any] = {}
    seeds: list[int] | None = None
    evaluate_on: str | None = None
    also_on: list[str] = []
    pictures: Annotated[list[Way], pydantic.Field(min_length=1)] = ["none"]

    @pydantic.field_validator("pictures")
    @classmethod
    def _different(cls, ways: list[Way]) -> list[Way]:
        if len(set(ways)) < len(ways):
            raise ValueError(f"a way to read pictures is named twice in {ways}")
        return ways

    @pydantic.model_validator(mode="after")
    def _seeds_of_a_teacher(self) -> Run:
        if self.teacher_seeds and self.teacher is None:
            raise ValueError(f"teacher_seeds {self.teacher_seeds} without a teacher")
        return self

    def teachers(self, seed: int) -> list[tuple[str, int]]:
        """The (run, seed) pairs that label for this run's seed, [] without a teacher."""
        if self.teacher is None or self.teacher == CONCLUSIONS:
            return []
        return [(self.teacher, each) for each in self.teacher_seeds or [seed]]


class Plan(pydantic.BaseModel):
    """Runs by name.

    evaluate_on: the corpus file that is scored; no run sees it before.
    also_on: further corpus files that every run which reads text alone is scored on. Runs with
        knowledge are left out: it was elicited about other texts than these.
    ambiguous: corpus files that say, with the one that is scored, which names are ambiguous; the
        scores on these are measured too. Empty for no such scores.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    name: str
    evaluate_on: str = "dev"
    also_on: list[str] = []
    seeds: list[int] = [1, 2, 3]
    overrides: dict[str, Any] = {}
    ambiguous: list[str] = []
    runs: dict[str, Run]

    def scored(self, run: Run) -> str:
        """The corpus file that the run is scored on."""
        return run.evaluate_on or self.evaluate_on

    def scored_too(self, run: Run) -> list[str]:
        """The further corpus files that the run is scored on."""
        return [] if run.knowledge else [p for p in self.also_on if p != self.scored(run)]

    def order(
        self, only: Iterable[str] | None = None, seeds: Iterable[int] | None = None
    ) -> Iterator[tuple[str, int]]:
        """(run, seed) pairs, seed by seed, a teacher always before its students.

        Raises MMCoTError for a name that is no run, and for a seed that no run has.
        """
        wanted = list(only) if only is not None else list(self.runs)
        for name in wanted:
            if name not in self.runs:
                raise MMCoTError(StudyErrors.E702.format(name=name, allowed=list(self.runs)))
        chosen = list(seeds) if seeds is not None else None
        every = sorted({s for run in self.runs.values() for s in (run.seeds or self.seeds)})
        for seed in chosen or ():
            if seed not in every:
                raise MMCoTError(StudyErrors.E706.format(seed=seed, allowed=every))
        done: set[tuple[str, int]] = set()
        for seed in chosen or every:
            for name in wanted:
                if seed in (self.runs[name].seeds or self.seeds):
                    yield from self._with_teachers(name, seed, done)

    def _with_teachers(
        self, name: str, seed: int, done: set[tuple[str, int]]
    ) -> Iterator[tuple[str, int]]:
        if (name, seed) in done:
            return
        done.add((name, seed))
        for teacher in self.runs[name].teachers(seed):
            yield from self._with_teachers(*teacher, done)
        yield name, seed


def read_plan(path: Path) -> Plan:
    """Raises MMCoTError for a file that is missing, no YAML, or no plan."""
    if not path.is_file():
        raise MMCoTError(Errors.E100.format(path=path))
    try:
        plan = Plan.model_validate(srsly.read_yaml(path))
    except ValueError as error:
        reason = "; ".join(str(error).splitlines()[:3])
        raise MMCoTError(StudyErrors.E703.format(path=path, reason=reason)) from error
    for name in plan.runs:
        fault = _teacher_fault(plan, name)
        if fault:
            raise MMCoTError(StudyErrors.E703.format(path=path, reason=fault))
    return plan


def _teacher_fault(plan: Plan, name: str) -> str | None:
    """What is wrong with the chain of teachers above a run."""
    chain = [name]
    while (teacher := plan.runs[chain[-1]].teacher) not in (None, CONCLUSIONS):
        if teacher not in plan.runs:
            return f"run {chain[-1]}: no run {teacher!r}"
        if teacher in chain:
            return f"run {name}: its teachers go in a circle ({' <- '.join([*chain, teacher])})"
        chain.append(teacher)
    return None
