"""Runs of a plan: train, label softly, evaluate, and one line of results for each."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock
from spacy.util import load_config

from research.errors import StudyErrors
from spacy_mmcot.errors import Errors, MMCoTError

from . import steps
from .picture_ways import compare_gates
from .plan import CONCLUSIONS, Plan, Run
from .results import SCHEMA, append_result, read_all_results

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
_PACKAGES = ("spacy-mmcot", "spacy", "spacy-transformers", "thinc", "torch", "transformers")


@functools.cache
def get_versions() -> dict[str, str]:
    """Python's version and those of the packages that training depends on, as far as installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


class Runner:
    """Runs what `results` does not hold yet.

    A training is identified by its settings (the config resolved with all overrides, thresholds
    apart), the bytes of its corpus files and its teachers; a line of results by the training, the
    thresholds, and by what is measured. While these are the same, nothing is trained or measured
    again, also across plans that share a folder of models and a results file. Where only the
    measurement differs, a pipeline that is still there is evaluated again.

    keep_models: have the pipelines of all runs in the end, also of those whose scores are known.
    Without it a pipeline is deleted after its evaluation, unless it is a teacher of the plan.

    What a run predicted stays beside its pipeline's folder, as NAME-SEED.predictions.jsonl, for
    `spacy-mmcot compare`.
    """

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
        """Raises MMCoTError for a missing file, a config that cannot be resolved, and a step that
        fails."""
        identity = self._identify_line(name, seed)
        every = read_all_results(self.results).values()
        known = [line for lines in every for line in lines if line.get("identity") == identity]
        if self.keep_models:
            self._get_model(name, seed)
        if any(line["experiment"] == self.plan.name for line in known):
            return
        if known:
            line = {**known[0], "experiment": self.plan.name, "run": name}
        else:
            line = self._measure(name, seed, identity)
        append_result(self.results, line)
        if name not in self._teachers and not self.keep_models:
            shutil.rmtree(self._folder(name, seed), ignore_errors=True)

    def _identify_training(self, name: str, seed: int) -> str:
        run = self.plan.runs[name]
        config = self._resolve_config(run, seed)
        for component in get_thresholds(config):
            del config["components"][component]["threshold"]
        settings = [
            run.model_dump(include={"train", "knowledge", "prompt_length"}),
            run.teacher == CONCLUSIONS,
            config,
            [_digest(self._file(part)) for part in (*run.train, self.plan.scored(run))],
            [self._identify_training(*teacher) for teacher in run.teachers(seed)],
        ]
        return _hash_json(settings)

    def _identify_line(self, name: str, seed: int) -> str:
        run = self.plan.runs[name]
        measured = [
            self._identify_training(name, seed),
            get_thresholds(self._resolve_config(run, seed)),
            self.plan.scored(run),
            run.pictures,
            [_digest(self._file(part)) for part in self.plan.ambiguous],
            # With their names, which the scores stand under.
            [[self._part(path), _digest(path)] for path in self._further_files(run)],
        ]
        return _hash_json(measured)

    def _get_model(self, name: str, seed: int) -> Path:
        """The run's pipeline: the one that is there, a copy of another plan's, or a new one,
        trained after its teachers. Waits for another process that is training the same."""
        run = self.plan.runs[name]
        identity = self._identify_training(name, seed)
        folder = self._folder(name, seed)
        model, trained = folder / "model-best", folder / "trained"
        self.output.mkdir(parents=True, exist_ok=True)
        with FileLock(self.output.parent / f".{identity}.lock"):
            if _read_identity(trained) == identity:
                return model
            print(f"── {self.plan.name}: {name}, seed {seed}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            if not self._copy_model(identity, folder):
                folder.mkdir(parents=True)
                files = list(map(self._file, run.train))
                if run.teacher is not None:
                    files = [self._label_softly(run, seed, files)]
                overrides = {
                    **self._overrides(run, seed),
                    "paths.train": str(link_files(files, folder / "corpus")),
                    "paths.dev": str(self._file(self.plan.scored(run))),
                }
                steps.train_pipeline(ROOT / run.config, folder, overrides)
            trained.write_text(identity, encoding="utf-8")
        return model

    def _copy_model(self, identity: str, folder: Path) -> bool:
        """Whether another plan had trained the same; then `folder` has its pipeline."""
        for trained in sorted(self.output.parent.glob("*/*/trained")):
            if _read_identity(trained) != identity:
                continue
            try:
                # Hard links: no second copy on disk, and either can be deleted.
                shutil.copytree(
                    trained.parent / "model-best", folder / "model-best", copy_function=os.link
                )
            except OSError:  # Another process is deleting it.
                shutil.rmtree(folder, ignore_errors=True)
                continue
            return True
        return False

    def _label_softly(self, run: Run, seed: int, files: list[Path]) -> Path:
        """The files with the teachers' soft labels, shared by all students of these teachers."""
        # One file serves all: a student without regression ignores the targets.
        length = max(r.prompt_length for r in self.plan.runs.values() if r.teacher == run.teacher)
        if run.teacher == CONCLUSIONS:
            digest = _hash_json([_digest(file) for file in files])
            labelled = self.output / f"concluded-{digest}.spacy"
            if not labelled.is_file():
                steps.label_from_conclusions(files, labelled)
            return labelled
        models = [self._get_model(*teacher) for teacher in run.teachers(seed)]
        digest = _hash_json([[_digest(file) for file in files], length, *map(str, models)])
        labelled = models[0].parent / f"labelled-{digest}.spacy"
        if not labelled.is_file():
            steps.label_softly(models, files, labelled, length)
        return labelled

    def _measure(self, name: str, seed: int, identity: str) -> dict[str, Any]:
        """The line of a run: its scores, and all that they depend on."""
        run = self.plan.runs[name]
        model, config = self._get_model(name, seed), self._resolve_config(run, seed)
        own = self._file(self.plan.scored(run))
        first, *others = run.pictures
        started = time.perf_counter()
        predictions = model.parent.with_name(f"{model.parent.name}.predictions.jsonl")
        evaluate = functools.partial(
            steps.evaluate_pipeline,
            model,
            knowledge=run.knowledge,
            ambiguous=[self._file(part) for part in self.plan.ambiguous],
            thresholds=get_thresholds(config),
        )
        metrics = evaluate(own, pictures=first, predictions=predictions)
        also_on = {
            self._part(path): evaluate(path, pictures=first) for path in self._further_files(run)
        }
        other_pictures = {way: evaluate(own, pictures=way) for way in others}
        seconds = time.perf_counter() - started
        gates = metrics.pop("gates", [])
        for further in (*also_on.values(), *other_pictures.values()):
            if (found := further.pop("gates", [])) and gates:
                further["gate_auc"] = compare_gates(gates, found)
        parts = dict.fromkeys((*run.train, self.plan.scored(run), *self.plan.scored_too(run)))
        training = metrics.get("training") or {}
        return {
            "schema": SCHEMA,
            "experiment": self.plan.name,
            "run": name,
            "seed": seed,
            "identity": identity,
            "evaluated_on": self.plan.scored(run),
            "description": run.model_dump(exclude_defaults=True),
            "overrides": self.plan.overrides,
            "config": config,
            "data": {part: _digest(self._file(part)) for part in parts},
            "versions": get_versions(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "seconds": {"train": training.get("seconds"), "evaluate": round(seconds, 2)},
            "metrics": metrics,
            "also_on": also_on,
            "other_pictures": other_pictures,
        }

    def _folder(self, name: str, seed: int) -> Path:
        return self.output / f"{name}-{seed}"

    def _file(self, part: str) -> Path:
        return self.corpus / f"{part}.spacy"

    def _further_files(self, run: Run) -> list[Path]:
        own = map(self._file, self.plan.scored_too(run))
        return [*own, *(FOLDER / Path(path).expanduser() for path in run.also_on)]

    def _part(self, file: Path) -> str:
        """A file's name in the results: a part of the corpus, or its path outside of it."""
        try:
            return file.resolve().relative_to(self.corpus.resolve()).with_suffix("").as_posix()
        except ValueError:
            return str(file)

    def _resolve_config(self, run: Run, seed: int) -> dict[str, Any]:
        return resolve_config(run.config, self._overrides(run, seed))

    def _overrides(self, run: Run, seed: int) -> dict[str, Any]:
        # The corpora's own tokens, as other work on them has it. Nothing is fitted to the Docs that
        # a run is scored on.
        own = {"corpora.dev.tokens": "gold", "training.before_to_disk": None}
        return {**own, **self.plan.overrides, **run.overrides, "system.seed": seed}


def resolve_config(path: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """A config as `spacy train` reads it, without the paths and without components that are not
    in the pipeline.

    path: from the repository's root, or absolute. Raises MMCoTError for a missing file and for an
    override of a section that does not exist.
    """
    file = ROOT / path
    if not file.is_file():
        raise MMCoTError(Errors.E100.format(path=path))
    try:
        config = load_config(file, overrides=overrides, interpolate=True)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise MMCoTError(StudyErrors.E707.format(path=path, reason=reason)) from error
    used = config.get("nlp", {}).get("pipeline", ())
    components = config.get("components", {})
    return {
        **{name: section for name, section in config.items() if name != "paths"},
        "components": {name: components[name] for name in components if name in used},
    }


def get_thresholds(config: dict[str, Any]) -> dict[str, float]:
    """The thresholds of a config by component: no training depends on them."""
    parts = config["components"].items()
    return {name: part["threshold"] for name, part in parts if "threshold" in part}


def link_files(files: list[Path], folder: Path) -> Path:
    """Fill a new folder with links to the files. The reader takes them in order of name."""
    folder.mkdir()
    for number, file in enumerate(files):
        link = folder / file.name
        if link.is_symlink():  # "a/train" and "b/train" of one run
            link = folder / f"{file.stem}-{number}{file.suffix}"
        link.symlink_to(file.resolve())
    return folder


def _read_identity(trained: Path) -> str | None:
    try:
        return trained.read_text(encoding="utf-8")
    except OSError:
        return None


def _digest(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError:
        raise MMCoTError(Errors.E100.format(path=path)) from None
    return hashlib.sha256(content).hexdigest()[:16]


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
