"""The command line: `spacy-mmcot COMMAND`, and `python -m spacy mmcot COMMAND`.

A command's file parses, calls and prints; it imports what it needs inside its function, since all
of them are imported at every call.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from .. import __version__
from ..errors import Errors, MMCoTError, UsageError
from ..messages import escape_control
from . import answers
from .annotate import annotate, export
from .compare import cascade, compare
from .convert import convert
from .elicit import elicit, plan
from .evaluate import calibrate, evaluate
from .init import init, scheme
from .report import report, review
from .teach import teach

app = typer.Typer(name="mmcot", no_args_is_help=True, pretty_exceptions_enable=False)


def print_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def read_options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=print_version, help="Print the version"),
    ] = False,
) -> None:
    """Distil an LLM's chain of thought into a spaCy pipeline."""


_KEPT = "\n\t"  # of control characters, in what is printed
_SPACY_CODE = re.compile(r"\[E[0-9]{3,4}\]")  # begins the messages of spaCy's own errors


class EscapedOutput(io.TextIOBase):
    """Standard output while a command runs: texts, ids and an endpoint's words cannot steer the
    terminal, however they are printed. `terminal` is the stream behind it, for progress bars."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.terminal.encoding

    def write(self, text: str) -> int:
        return self.terminal.write(escape_control(text, keep=_KEPT))

    def flush(self) -> None:
        self.terminal.flush()


# What the extra `elicit` installs.
_ELICITING = frozenset({"aiohttp", "aiolimiter", "certifi", "genai_prices", "json_repair"})


def _check_outputs(command: str, options: dict[str, Any]) -> None:
    """Raises UsageError where a command would write over a file that it reads, or twice, or into a
    folder whose .spacy files it reads. `convert OLD NEW --output OLD` adds to a file: it has read
    all before it writes."""
    given = [
        (name, Path(path).resolve())
        for name, value in options.items()
        for path in (value if isinstance(value, list) else [value])
        if isinstance(path, Path) or name == "paths"
    ]
    files = Counter(path for name, path in given if (command, name) != ("convert", "inputs"))
    read = {path for name, path in given if name in ("inputs", "paths", "data") and path.is_dir()}
    for name, path in given:
        is_output = name in ("output", "answers_out", "json", "disagreements")
        joins = path.suffix == ".spacy" and not read.isdisjoint(path.parents)
        if is_output and (joins or (files[path] > 1 and not path.is_dir())):
            raise UsageError(Errors.E749.format(path=options[name]))


def plain_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command: what it prints is escaped, and an MMCoTError is one line on stderr, as an
    error of spaCy's or a file system's is a message. Exit code 1, or 2 for options that cannot be
    used (UsageError). Anything else is a bug and keeps its traceback."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with contextlib.redirect_stdout(EscapedOutput(sys.stdout)):
                _check_outputs(function.__name__, kwargs)
                return function(*args, **kwargs)
        except MMCoTError as error:
            print(f"✘ {escape_control(str(error))}", file=sys.stderr)
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
        except Exception as error:
            words = str(error.args[0]) if error.args else ""
            if isinstance(error, OSError) and error.filename is not None:
                words = str(error)
            elif isinstance(error, ImportError) and error.name in _ELICITING:
                words = Errors.E812.format(purpose="The command", package=error.name)
            elif not _SPACY_CODE.match(words):
                raise
            print(f"✘ {escape_control(words, keep=_KEPT)}", file=sys.stderr)
            raise typer.Exit(1) from None

    return run


for _command in (
    *(init, scheme, convert, plan, elicit, answers.augment, teach, calibrate, evaluate),
    *(compare, cascade, report, review, annotate, export),
):
    app.command(_command.__name__)(plain_errors(_command))
answers.app.command("export")(plain_errors(answers.export_answers))
answers.app.command("import")(plain_errors(answers.import_answers))
answers.app.command("spend")(plain_errors(answers.spend))
app.add_typer(answers.app, name="answers")


def main() -> None:
    app(prog_name="spacy-mmcot")


def check_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command of spaCy: a GPU that is asked for and cannot be used is an MMCoTError."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        from ..production.job import use_gpu

        use_gpu(kwargs.get("use_gpu", -1))
        return function(*args, **kwargs)

    return run


# `python -m spacy` imports this module through the entry point `spacy_cli`, for it to add its
# commands. Others do not wait for spaCy to load.
if "spacy.cli._util" in sys.modules:
    from spacy.cli._util import app as spacy_app

    # A training whose file is missing ends in the message, not in a traceback.
    for _info in spacy_app.registered_commands:
        if _info.callback is not None:
            _info.callback = plain_errors(check_gpu(_info.callback))
    spacy_app.add_typer(app, name="mmcot")
