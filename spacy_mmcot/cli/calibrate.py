"""`calibrate`: make a pipeline's span scores mean what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def calibrate(
    pipeline: Annotated[Path, typer.Argument(help="Folder of a trained pipeline, changed")],
    data: Annotated[
        Path, typer.Argument(help=".spacy file or folder with gold entities, not the test set")
    ],
    knowledge: Annotated[
        bool, typer.Option(help="Let the pipeline see the docs' knowledge (for teachers)")
    ] = False,
) -> None:
    """Fit the temperature of PIPELINE's span scores on DATA. Predictions stay as they are."""
    from ..corpus.reader import Corpus
    from ..errors import Errors, MMCoTError
    from ..evaluation.calibration import fit_temperature
    from ..production.pipelines import load_pipeline

    nlp = load_pipeline(pipeline)
    factories = {nlp.get_pipe_meta(name).factory: name for name in nlp.pipe_names}
    found = factories.get("mmcot_ner")
    if not pipeline.is_dir() or found is None:
        raise MMCoTError(Errors.E701.format(source=pipeline))
    component: Any = nlp.get_pipe(found)
    examples = list(Corpus(data, knowledge=knowledge)(nlp))
    docs = [eg.predicted for eg in examples]
    for name in nlp.pipe_names[: nlp.pipe_names.index(found)]:
        docs = list(nlp.get_pipe(name).pipe(docs))  # type: ignore[attr-defined]
    for example, doc in zip(examples, docs, strict=True):
        example.predicted = doc
    before = component.cfg["temperature"]
    after = fit_temperature(component, examples)
    component.to_disk(pipeline / found, exclude=["vocab"])
    print(f"temperature of {pipeline}: {before:.3f} -> {after:.3f}")
