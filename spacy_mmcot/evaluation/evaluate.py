"""The scores of a pipeline on labelled Docs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from ..corpus.docbin import make_examples
from ..corpus.extensions import get_image, list_relations
from ..errors import Errors, MMCoTError
from ..types import Pictures, Tokens
from .calibration import collect_mention_scores, compute_calibration_error
from .predictions import Predicted, collect_predictions, write_predictions
from .scores import score_entities, score_seqeval


def evaluate(
    nlp: Language,
    docs: Iterable[Doc],
    *,
    knowledge: bool = False,
    pictures: Pictures = "none",
    tokens: Tokens = "pipeline",
    predictions: str | Path | None = None,
    source: object = "the docs",
) -> dict[str, Any]:
    """Run a pipeline over the texts of labelled Docs and score what it finds.

    docs: Docs with entities or relations, such as `DocBin().from_disk(path).get_docs(nlp.vocab)`.
        They stay as they are. A pipeline that finds relations but no entities is given the gold
        entities.
    knowledge: whether the pipeline gets the Docs' knowledge (for teachers).
    pictures: "real": it gets the Docs' pictures; "none": it gets none.
    tokens: "pipeline": the texts are tokenized by the pipeline, as when it is used; "gold": it gets
        the Docs' own tokens, which may have been cut at gold entities. A pipeline that is given the
        gold entities always gets these.
    predictions: file to write the predictions to, one JSON line per Doc.
    source: what messages call the Docs.

    Returns the metrics: `ents_p`, `ents_r`, `ents_f`, `ents_per_type` (strict), `seqeval_*`,
    `ents_ece`, `ents_unaligned` (how many gold entities do not begin and end with tokens, so that
    no pipeline with this tokenizer can find them); `rel_*` (on gold mentions) and `rel_e2e_*` (end
    to end); `docs`, `docs_with_picture`, `pictures`, `words_per_second`, `model_mb`, `training`.
    Keys of what could not be scored are absent. Scores are from 0 to 1.

    Raises MMCoTError where no Doc is labelled with what the pipeline finds, and where a file cannot
    be written.
    """
    examples = list(
        make_examples(
            nlp,
            # Components need Docs on the pipeline's vocab.
            (
                doc if doc.vocab is nlp.vocab else Doc(nlp.vocab).from_bytes(doc.to_bytes())
                for doc in docs
            ),
            knowledge=knowledge,
            gold_entities=needs_gold_entities(nlp),
            pictures=pictures,
            tokens=tokens,
        )
    )
    metrics, found = run_pipeline(nlp, examples, pictures)
    if "ents_f" not in metrics and "rel_e2e_f" not in metrics:
        raise MMCoTError(Errors.E705.format(path=source, pipeline=nlp.pipe_names))
    if predictions is not None:
        write_predictions(Path(predictions), found)
    return metrics


def run_pipeline(
    nlp: Language, examples: list[Example], pictures: Pictures = "none"
) -> tuple[dict[str, Any], list[Predicted]]:
    """Run the pipeline over the predicted Docs of the examples, which then hold what it found, and
    score that against the references. Returns the metrics, as `evaluate` describes them, and the
    predictions. pictures: those that the examples were made with."""
    n_pictures = sum(get_image(eg.predicted) is not None for eg in examples)
    started = time.perf_counter()
    for example, doc in zip(examples, nlp.pipe([eg.predicted for eg in examples]), strict=True):
        example.predicted = doc
    seconds = time.perf_counter() - started
    finds = any("doc.ents" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names)
    found = collect_predictions(examples, finds_entities=finds)
    metrics: dict[str, Any] = {}
    if finds and any(eg.reference.has_annotation("ENT_IOB") for eg in examples):
        metrics.update(score_entities(examples) | score_seqeval(examples))
        metrics["ents_unaligned"] = count_unaligned(examples)
        metrics["ents_ece"] = compute_calibration_error(*collect_mention_scores(found))
    if any(list_relations(eg.reference) is not None for eg in examples):
        for name in nlp.pipe_names:
            if nlp.get_pipe_meta(name).factory == "mmcot_rel":
                pipe: Any = nlp.get_pipe(name)
                metrics.update(pipe.score(examples))
    metrics |= {"docs": len(examples), "docs_with_picture": n_pictures, "pictures": pictures}
    metrics["words_per_second"] = round(sum(doc.words for doc in found) / seconds)
    metrics["model_mb"] = None
    if nlp.path is not None:  # loaded from disk
        files = (path for path in nlp.path.rglob("*") if path.is_file())
        metrics["model_mb"] = round(sum(path.stat().st_size for path in files) / 1e6, 1)
    metrics["training"] = nlp.meta.get("mmcot_training")
    return metrics, found


def count_unaligned(examples: Iterable[Example]) -> int:
    """The number of gold entities that do not begin and end with tokens of the predicted Docs."""
    return sum(
        eg.predicted.char_span(ent.start_char, ent.end_char) is None
        for eg in examples
        for ent in eg.reference.ents
    )


def needs_gold_entities(nlp: Language) -> bool:
    """Whether the pipeline has mmcot_rel and no component before it sets entities."""
    metas = map(nlp.get_pipe_meta, nlp.pipe_names)
    first = next((m for m in metas if m.factory == "mmcot_rel" or "doc.ents" in m.assigns), None)
    return first is not None and first.factory == "mmcot_rel"
