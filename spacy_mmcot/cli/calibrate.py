"""`calibrate`: fit the temperature of a pipeline's confidence scores."""

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
        bool, typer.Option(help="Give the docs' knowledge to the pipeline (for teachers)")
    ] = False,
) -> None:
    """Fit the temperature of PIPELINE's span scores on DATA. Predictions do not change."""
    from ..corpus.reader import Corpus
    from ..errors import Errors, MMCoTError
    from ..evaluation.temperature import calibrate_pipeline
    from ..production.pipelines import load_pipeline

    nlp = load_pipeline(pipeline)
    factories = {nlp.get_pipe_meta(name).factory: name for name in nlp.pipe_names}
    found = factories.get("mmcot_ner")
    if not pipeline.is_dir() or found is None:
        raise MMCoTError(Errors.E701.format(source=pipeline))
    component: Any = nlp.get_pipe(found)
    before = component.cfg["temperature"]
    after = calibrate_pipeline(nlp, found, list(Corpus(data, knowledge=knowledge)(nlp)))
    component.to_disk(pipeline / found, exclude=["vocab"])
    print(f"temperature of {pipeline}: {before:.3f} -> {after:.3f}")
