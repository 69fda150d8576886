"""`benchmark`: measurements that stay in the project, so that anyone can take them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures here")]


def train(
    taught: Annotated[Path, typer.Argument(help="A .spacy file that `teach` wrote")],
    student: Annotated[Path, typer.Option(help="Training config")] = Path("configs/student.cfg"),
    baseline: Annotated[Path, typer.Option(help="Training config")] = Path("configs/baseline.cfg"),
    limit: Annotated[int, typer.Option(min=0, help="Most docs, 0 for all")] = 0,
    json: JsonFile = None,
) -> None:
    """Seconds of a student's epoch over those of a plain fine-tuning epoch, same batches."""
    from ..benchmarks.train import epoch_ratio
    from ..corpus.docbin import docbin_paths
    from ..errors import Errors, MMCoTError

    docbin_paths(taught)
    for config in (student, baseline):
        if not config.is_file():
            raise MMCoTError(Errors.E100.format(path=config))
    _report(epoch_ratio(student, baseline, taught, limit), json)


def _report(figures: dict[str, Any], path: Path | None) -> None:
    import srsly

    for name, value in figures.items():
        print(f"{name}: {value}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        srsly.write_json(path, figures)
