"""The steps of a run, in this process: each does what the command of the same purpose does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.errors import StudyErrors
from spacy_mmcot.errors import Errors, MMCoTError

from .ambiguity import find_ambiguous_surfaces, score_ambiguous
from .picture_ways import Way, change_pictures

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_mmcot.evaluation.predictions import Predicted


def train_pipeline(config: Path, output: Path, overrides: dict[str, Any]) -> None:
    """`spacy train`: writes the pipeline after its last step to output/model-best. Raises
    MMCoTError where it fails."""
    from spacy.cli.train import train

    try:
        train(config, output, overrides=overrides)
    except SystemExit:  # spaCy has said why.
        raise MMCoTError(StudyErrors.E704.format(command=f"train {config}")) from None
    # What spaCy finds best was chosen by the Docs that the study scores.
    shutil.rmtree(output / "model-best")
    (output / "model-last").rename(output / "model-best")


def label_softly(
    teachers: Sequence[Path], files: Sequence[Path], output: Path, prompt_length: int = 0
) -> None:
    """`spacy-mmcot teach`: writes the files' Docs with the mean of the teachers' distributions and,
    for a prompt_length above 0, prompt targets of the first teacher's encoder."""
    from spacy_mmcot import read_docs, teach, write_docs
    from spacy_mmcot.distillation.teach import KnowledgeEncoder, set_prompt_targets
    from spacy_mmcot.production.job import load_pipeline

    first = load_pipeline(teachers[0])
    pipelines = [first, *(load_pipeline(other, first.vocab) for other in teachers[1:])]
    docs = list(teach(pipelines, (doc for file in files for doc in read_docs(file, first.vocab))))
    if prompt_length:
        source = first.config["components"]["transformer"]["model"]["source"]
        set_prompt_targets(docs, KnowledgeEncoder(source, prompt_length))
    write_docs(output, docs)


def label_from_conclusions(files: Sequence[Path], output: Path) -> None:
    """`spacy-mmcot teach --from conclusions`."""
    from spacy_mmcot.production.teaching import teach_from_conclusions

    teach_from_conclusions(files, output)


def evaluate_pipeline(
    model: Path,
    data: Path,
    *,
    knowledge: bool = False,
    pictures: Way = "none",
    ambiguous: Sequence[Path] = (),
    predictions: Path | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """`spacy-mmcot evaluate`: the metrics of a pipeline on a file.

    pictures: see `picture_ways`.
    ambiguous: labelled files that say, with `data`, which names are ambiguous; empty for no scores
    of these. predictions: where to write what the pipeline found. thresholds: of components, in
    place of those they were trained with.

    `gates` of the metrics are those of all windows that were read with a picture. Where none was,
    `ents_ece_calibrated` is the calibration error of half of the Docs with the pipeline calibrated
    on the other half, over both halves.
    """
    from spacy_mmcot import evaluate, read_docs
    from spacy_mmcot.evaluation.predictions import read_predictions
    from spacy_mmcot.production.job import load_pipeline

    nlp = load_pipeline(model)
    gates: list[float] = []
    if "transformer" in nlp.pipe_names:
        transformer: Any = nlp.get_pipe("transformer")
        transformer.set_extra_annotations = lambda _, batch: gates.extend(
            gate for gate, _ in filter(None, getattr(batch, "views", ()))
        )
    for component, threshold in (thresholds or {}).items():
        nlp.get_pipe(component).cfg["threshold"] = threshold  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        found = predictions or Path(folder) / "predictions.jsonl"
        metrics = evaluate(
            nlp,
            change_pictures(read_docs(data, nlp.vocab), pictures, data),
            knowledge=knowledge,
            pictures="none" if pictures == "none" else "real",
            tokens="gold",
            predictions=found,
            source=data,
        )
        metrics |= {"pictures": pictures, "gates": gates}
        if "ents_ece" in metrics and pictures == "none":
            metrics["ents_ece_calibrated"] = measure_calibrated_error(nlp, data, knowledge)
        if ambiguous:
            docs = (doc for path in (data, *ambiguous) for doc in read_docs(path, nlp.vocab))
            surfaces = find_ambiguous_surfaces(docs)
            metrics |= score_ambiguous(read_predictions(found), surfaces)
    return metrics


def measure_calibrated_error(nlp: Language, data: Path, knowledge: bool) -> float:
    """The calibration error of each half of a file's Docs, every second one, after the pipeline was
    calibrated on the other half. The pipeline keeps the last temperature."""
    from spacy_mmcot.corpus.docbin import Corpus
    from spacy_mmcot.evaluation import calibration
    from spacy_mmcot.evaluation.evaluate import run_pipeline

    name = calibration.find_ner(nlp)
    if name is None:
        raise MMCoTError(Errors.E701.format(source=data))
    found: list[Predicted] = []
    for half in (0, 1):
        examples = list(Corpus(data, knowledge=knowledge, tokens="gold")(nlp))
        labelled = [eg for eg in examples if calibration.is_labelled(nlp.get_pipe(name), eg)]
        calibration.calibrate_pipeline(nlp, name, labelled[half::2])
        found += run_pipeline(nlp, labelled[1 - half :: 2])[1]
    return calibration.compute_calibration_error(*calibration.collect_mention_scores(found))
