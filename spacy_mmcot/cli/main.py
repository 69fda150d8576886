"""The command line: `spacy-mmcot COMMAND`, and `python -m spacy mmcot COMMAND` by spaCy's
`spacy_cli` entry point.

spaCy imports this module at every `python -m spacy` call, so the command files import what they
need inside their functions.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer

from ..errors import MMCoTError
from . import benchmark
from .augment import augment
from .calibrate import calibrate
from .convert import convert
from .elicit import elicit
from .evaluate import evaluate
from .experiment import experiment
from .teach import teach

app = typer.Typer(
    name="mmcot",
    help="Distil an LLM's chain of thought into a spaCy pipeline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _plain_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a user can put right ends in one line on stderr and exit code 1, not in a traceback."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except MMCoTError as error:
            print(f"✘ {error}", file=sys.stderr)
            raise typer.Exit(1) from None

    return run


for _function in (convert, elicit, augment, teach, calibrate, evaluate, experiment):
    app.command(_function.__name__)(_plain_errors(_function))
benchmark.app.command("train")(_plain_errors(benchmark.train))
# A lone command would swallow its own name: the callback keeps `benchmark train` two words.
benchmark.app.callback()(lambda: None)
app.add_typer(benchmark.app, name="benchmark")


def main() -> None:
    app(prog_name="spacy-mmcot")
