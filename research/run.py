"""The software that a run's figures come from.

Runs of a plan: `spacy train`, `teach` and `evaluate`, each a process of its own.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock
from spacy.util import load_config
from spacy.vocab import Vocab

from spacy_mmcot.corpus.docbin import read_all
from spacy_mmcot.errors import Errors, MMCoTError
from spacy_mmcot.evaluation.predictions import read_predictions
from spacy_mmcot.types import Pictures

from .ambiguity import ambiguous_scores, ambiguous_surfaces
from .plan import Plan, Run
from .results import append_result, read_all_results

_PACKAGES = ("spacy-mmcot", "spacy", "spacy-transformers", "thinc", "torch", "transformers")


@functools.cache
def versions() -> dict[str, str]:
    """Python's version and those of the packages that training depends on, as far as installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# Settings that change nothing at these values: whether a config spells them out or leaves them
# out, the run is the same, so that the results of a time before a setting existed still count.
_OFF: dict[str, Any] = {"vision": None, "pictures": "none", "segment_grains": None, "layers": None}
_PACE = 64  # the nlp.batch_size that runs are identified with, whatever theirs is
_VISION_ONLY = {"visual_prompts", "picture_dropout", "picture_swap", "picture_matching"}


class Runner:
    """Runs what `results` does not hold yet. The lines of a results file stay valid as long as
    the run's settings (its config resolved with all overrides), the bytes of its corpus files and
    what is measured are the same. Where only the last differs, a pipeline that was kept is
    evaluated again, not trained. Plans that share a folder and a results file share what is the
    same in them: a pipeline that is there, or scores.

    keep_models: have the pipelines of all runs in the end, also of those whose scores are known.
    Without it a pipeline goes once it is scored, unless another run of the plan needs it.

    What a run found stays beside its pipeline's folder, as NAME-SEED.predictions.jsonl: `compare`
    reads these files."""

    def __init__(
        self, plan: Plan, corpus: Path, output: Path, results: Path, *, keep_models: bool = False
    ):
        self.plan = plan
        self.corpus = corpus
        self.output = output / plan.name
        self.results = results
        self.keep_models = keep_models
        self._teachers = {run.teacher for run in plan.runs.values()}

    def run(self, name: str, seed: int) -> None:
        run = self.plan.runs[name]
        measured = self._measured(run, self._identity(name, seed))
        known = self._known(measured)
        if self.keep_models:
            self._trained(name, seed)
        if any(line["experiment"] == self.plan.name for line in known):
            return
        line = self._of_another_plan(name, known)
        if line is None:
            line = self._line(name, seed, measured, self._trained(name, seed))
        append_result(self.results, line)
        if name not in self._teachers and not self.keep_models:
            shutil.rmtree(self._folder(name, seed), ignore_errors=True)

    def _known(self, measured: str) -> list[dict[str, Any]]:
        """What the results hold about the same training, measured the same way, in any plan."""
        plans = read_all_results(self.results).values()
        return [line for lines in plans for line in lines if line.get("identity") == measured]

    def _of_another_plan(self, name: str, known: list[dict[str, Any]]) -> dict[str, Any] | None:
        """A line for this run from one that another plan wrote. Where the run names further files
        of its own, it is scored anew."""
        run = self.plan.runs[name]
        if run.also_on:
            return None
        scored = self.plan.scored(run)
        for line in known:
            if line["evaluated_on"] == scored:
                return {**line, "experiment": self.plan.name, "run": name}
        return None

    def _trained(self, name: str, seed: int) -> Path:
        """The run's pipeline: the one that is there, or a copy of another plan's, or a new one.
        Its teachers come first, where they are missing. What another process is just training is
        waited for."""
        run = self.plan.runs[name]
        identity = self._identity(name, seed)
        folder = self._folder(name, seed)
        model, trained = folder / "model-best", folder / "trained"
        self.output.mkdir(parents=True, exist_ok=True)
        with FileLock(self.output.parent / f".{identity}.lock"):
            if _identity_in(trained) == identity:
                return model
            print(f"── {self.plan.name}: {name}, seed {seed}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            if not self._copied(identity, folder):
                folder.mkdir(parents=True)
                files = list(map(self._file, run.train))
                if run.teacher is not None:
                    files = [self._taught(run, seed, files)]
                self._train(run, seed, _folder_of(files, folder / "corpus"), folder)
            trained.write_text(identity, encoding="utf-8")
        return model

    def _copied(self, identity: str, folder: Path) -> bool:
        """Whether another plan had trained the same, whose pipeline `folder` now has."""
        for trained in sorted(self.output.parent.glob("*/*/trained")):
            if _identity_in(trained) != identity:
                continue
            try:
                # Links to the files: no second copy on disk, and the one outlives the other.
                shutil.copytree(
                    trained.parent / "model-best", folder / "model-best", copy_function=os.link
                )
            except OSError:  # Another process is just taking it away.
                shutil.rmtree(folder, ignore_errors=True)
                continue
            return True
        return False

    def _line(self, name: str, seed: int, measured: str, model: Path) -> dict[str, Any]:
        """What is kept of a trained run: its scores, and all that they depend on."""
        run = self.plan.runs[name]
        own = self._file(self.plan.scored(run))
        further = [*map(self._file, self.plan.scored_too(run)), *map(_user_path, run.also_on)]
        first, *others = run.pictures
        started = time.perf_counter()
        predictions = model.parent.with_name(f"{model.parent.name}.predictions.jsonl")
        metrics = self._evaluate(run, model, own, first, predictions)
        also = {self._part(path): self._evaluate(run, model, path, first) for path in further}
        other_pictures = {way: self._evaluate(run, model, own, way) for way in others}
        seconds = time.perf_counter() - started
        parts = dict.fromkeys((*run.train, self.plan.scored(run), *self.plan.scored_too(run)))
        training = metrics.get("training") or {}
        return {
            "experiment": self.plan.name,
            "run": name,
            "seed": seed,
            "identity": measured,
            "evaluated_on": self.plan.scored(run),
            "description": run.model_dump(exclude_defaults=True),
            "overrides": self.plan.overrides,
            "config": _resolved(run.config, self._overrides(run, seed)),
            "data": {part: _digest(self._file(part)) for part in parts},
            "versions": versions(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "seconds": {"train": training.get("seconds"), "evaluate": round(seconds, 2)},
            "metrics": metrics,
            "also_on": also,
            "other_pictures": other_pictures,
        }

    def _folder(self, name: str, seed: int) -> Path:
        return self.output / f"{name}-{seed}"

    def _file(self, part: str) -> Path:
        return self.corpus / f"{part}.spacy"

    def _part(self, file: Path) -> str:
        """What a file is called in results: a part of the corpus, or its path where it is none."""
        try:
            return file.resolve().relative_to(self.corpus.resolve()).with_suffix("").as_posix()
        except ValueError:
            return str(file)

    def _overrides(self, run: Run, seed: int) -> dict[str, Any]:
        return {**self.plan.overrides, **run.overrides, "system.seed": seed}

    def _measured(self, run: Run, identity: str) -> str:
        """The identity of a results line: of the training, and of what is measured beyond plain
        scores on text."""
        parts = [identity]
        if run.pictures != ["none"]:
            parts.append("-".join(run.pictures))
        if self.plan.ambiguous:
            files = b"".join(_content(self._file(part)) for part in self.plan.ambiguous)
            parts.append(f"ambiguous-{hashlib.sha256(files).hexdigest()[:8]}")
        if further := self.plan.scored_too(run):
            # With their names, which the scores stand under.
            named = [[part, _digest(self._file(part))] for part in further]
            parts.append(f"also-{hashlib.sha256(json.dumps(named).encode()).hexdigest()[:8]}")
        return "+".join(parts)

    def _identity(self, name: str, seed: int) -> str:
        run = self.plan.runs[name]
        digest = hashlib.sha256()
        settings = [
            run.model_dump(include={"train", "knowledge", "prompt_length"}),
            _without_pace(_resolved(run.config, self._overrides(run, seed))),
        ]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for part in (*run.train, self.plan.scored(run)):
            digest.update(_content(self._file(part)))
        for teacher in run.teachers(seed):
            digest.update(self._identity(*teacher).encode())
        return digest.hexdigest()[:16]

    def _taught(self, run: Run, seed: int, files: list[Path]) -> Path:
        """The teacher's view of the files, shared by all students of the same teachers."""
        # One file serves all: a student without regression leaves the targets alone.
        length = max(r.prompt_length for r in self.plan.runs.values() if r.teacher == run.teacher)
        digest = hashlib.sha256(b"".join(map(_content, files))).hexdigest()[:16]
        folder, *others = (self._trained(*teacher).parent for teacher in run.teachers(seed))
        known = "".join(f"-{other.name}" for other in others)
        taught = folder / f"taught-{digest}-{length}{known}.spacy"
        if not taught.is_file():
            options: list[object] = ["--prompt-length", length] if length else []
            for other in others:
                options += ["--with", other / "model-best"]
            _call("mmcot", "teach", folder / "model-best", *files, "--output", taught, *options)
        return taught

    def _train(self, run: Run, seed: int, corpus: Path, folder: Path) -> None:
        overrides = {
            "paths.train": corpus,
            "paths.dev": self._file(self.plan.scored(run)),
            "system.seed": seed,
            **self.plan.overrides,
            **run.overrides,
        }
        flat = [str(item) for key, v in overrides.items() for item in (f"--{key}", _as_json(v))]
        _call("train", run.config, "--output", folder, *flat)

    def _evaluate(
        self,
        run: Run,
        model: Path,
        data: Path,
        pictures: Pictures,
        predictions: Path | None = None,
    ) -> Any:
        output = model.parent / "metrics.json"
        predictions = predictions or model.parent / "predictions.jsonl"
        options = ["--output", output, "--pictures", pictures, "--predictions", predictions]
        if run.knowledge:
            options.append("--knowledge")
        _call("mmcot", "evaluate", model, data, *options)
        metrics = json.loads(output.read_text(encoding="utf-8"))
        if self.plan.ambiguous:
            files = [data, *map(self._file, self.plan.ambiguous)]
            surfaces = ambiguous_surfaces(doc for file in files for doc in read_all(file, Vocab()))
            metrics.update(ambiguous_scores(read_predictions(predictions), surfaces))
        return metrics


def _call(*command: object) -> None:
    full = [sys.executable, "-m", "spacy", *map(str, command)]
    if subprocess.run(full).returncode:
        raise MMCoTError(Errors.E704.format(command=" ".join(full[1:])))


def _resolved(path: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """A config as `spacy train` reads it, without the paths and without components that are not
    in the pipeline: what a run is, not where."""
    if not Path(path).is_file():
        raise MMCoTError(Errors.E100.format(path=path))
    try:
        config = load_config(path, overrides=overrides, interpolate=True)
    except ValueError as error:
        raise MMCoTError(
            Errors.E707.format(path=path, reason=" ".join(str(error).split()))
        ) from error
    used = config.get("nlp", {}).get("pipeline", ())
    components = config.get("components", {})
    return _without_off(
        {
            **{name: section for name, section in config.items() if name != "paths"},
            "components": {name: components[name] for name in components if name in used},
        }
    )


def _without_pace(config: dict[str, Any]) -> dict[str, Any]:
    """A config at the pace that the first runs were identified with: how many Docs a pipeline reads
    at once decides how fast it is, not what it learns."""
    nlp = config.get("nlp", {})
    return {**config, "nlp": {**nlp, "batch_size": _PACE}} if "batch_size" in nlp else config


def _without_off(section: dict[str, Any]) -> dict[str, Any]:
    kept = {
        name: _without_off(value) if isinstance(value, dict) else value
        for name, value in section.items()
        if not (name in _OFF and value == _OFF[name])
    }
    return kept if "vision" in kept else {n: v for n, v in kept.items() if n not in _VISION_ONLY}


def _as_json(value: Any) -> Any:
    """An override's value as spaCy's command line reads it back."""
    return value if isinstance(value, str | Path) else json.dumps(value)


def _identity_in(trained: Path) -> str | None:
    try:
        return trained.read_text(encoding="utf-8")
    except OSError:
        return None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise MMCoTError(Errors.E100.format(path=path)) from None


def _digest(path: Path) -> str:
    return hashlib.sha256(_content(path)).hexdigest()[:16]


def _user_path(path: str) -> Path:
    return Path(path).expanduser()


def _folder_of(files: list[Path], folder: Path) -> Path:
    """A folder of links to the files. The reader takes them in order of name, which a file keeps
    where no other has it, so that the order of old runs stays."""
    folder.mkdir()
    for number, file in enumerate(files):
        link = folder / file.name
        if link.is_symlink():
            link = folder / f"{file.stem}-{number}{file.suffix}"
        link.symlink_to(file.resolve())
    return folder
