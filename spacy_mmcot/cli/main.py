"""The command line: `spacy-mmcot COMMAND`, and `python -m spacy mmcot COMMAND` by spaCy's
`spacy_cli` entry point.

spaCy imports this module at every `python -m spacy` call, so the command files import what they
need inside their functions.

Loaded by spaCy through the `spacy_cli` entry point: adds `mmcot` to `python -m spacy`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer
from spacy.cli._util import app as spacy_app

from ..errors import MMCoTError, UsageError
from . import answers
from .annotate import annotate
from .augment import augment
from .calibrate import calibrate
from .cascade import cascade
from .compare import compare
from .convert import convert
from .elicit import elicit
from .evaluate import evaluate
from .export import export
from .plan import plan
from .report import report
from .teach import teach

app = typer.Typer(
    name="mmcot",
    help="Distil an LLM's chain of thought into a spaCy pipeline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def plain_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a user can put right ends in one line on stderr and exit code 1, or 2 for options that
    cannot be used, not in a traceback."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except MMCoTError as error:
            print(f"✘ {error}", file=sys.stderr)
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None

    return run


for _function in (
    *(convert, plan, elicit, augment, teach, calibrate, evaluate),
    *(compare, cascade, report, annotate, export),
):
    app.command(_function.__name__)(plain_errors(_function))
answers.app.command("export")(plain_errors(answers.export_answers))
answers.app.command("import")(plain_errors(answers.import_answers))
answers.app.command("spend")(plain_errors(answers.spend))
app.add_typer(answers.app, name="answers")


def main() -> None:
    app(prog_name="spacy-mmcot")


spacy_app.add_typer(app, name="mmcot")
