"""What is printed: faults of rows in plain words, values and texts on one line, and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from unicodedata import category

from .errors import Errors, MMCoTError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from rich.text import Text


def located(
    path: object, line: int | str, problem: str, expected: str, cure: str = ""
) -> MMCoTError:
    """An error about one line of a file, counted from 1, or about a place that is no line, such as
    "document 3"."""
    place = f"line {line}" if isinstance(line, int) else line
    fields = {"place": place, "problem": problem, "expected": expected, "cure": cure}
    return MMCoTError(Errors.E101.format(path=path, **fields).rstrip())


def explain(error: ValidationError) -> tuple[str, str]:
    """The first fault pydantic found, as a problem and what was expected, in plain words."""
    fault = error.errors(include_url=False)[0]
    name = ""
    for part in fault["loc"]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "missing":
        return f"field {name} is missing", "a row with that field"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"field {name} is unknown", "only the fields of the format"
    if kind == "value_error":
        return str(context["error"]), "a row whose fields agree with each other"
    expected = {
        "string_type": "a text",
        "string_unicode": "a text without halves of surrogate pairs",
        "string_too_short": "a text that is not empty",
        "int_type": "a whole number",
        "bool_type": "true or false",
        "list_type": "a list",
        "tuple_type": "a list",
        "model_type": "an object, {...}",
        "dict_type": "an object, {...}",
        "json_invalid": "one JSON object",
        "too_short": "a list that is not empty",
        "literal_error": context.get("expected", ""),
        "greater_than_equal": f"a number of at least {context.get('ge')}",
        "less_than_equal": f"a number of at most {context.get('le')}",
    }.get(kind, fault["msg"])
    return f"{f'field {name}' if name else 'the row'} is {shown(fault['input'])}", expected


def escape_control(text: str, keep: str = "") -> str:
    """A text with control characters, marks of direction and halves of surrogate pairs escaped, as
    in \\x1b, so that it cannot steer a terminal. keep: characters that are not escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep or category(c) == "Zs" else ascii(c)[1:-1] for c in text
    )


def shown(value: object) -> str:
    """A value as a message can hold it: its repr, cut at 60 characters."""
    whole = repr(value)
    return whole if len(whole) <= 60 else whole[:57] + "..."


def check_range(
    owner: str, setting: str, value: float | None, least: float, most: float = math.inf
) -> None:
    """Raises MMCoTError for a number outside of the range; None is no number."""
    if value is not None and not least <= value <= most:
        allowed = f"numbers from {least} to {most}" if most < math.inf else f"at least {least}"
        name = f"{owner}: {setting}"
        raise MMCoTError(Errors.E409.format(name=name, received=value, allowed=allowed))


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, escaped."""
    lines = str(error).strip().splitlines()
    return escape_control(lines[0]) if lines else type(error).__name__


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    total: Sequence[object] | None = None,
    names: int = 1,
) -> None:
    """Print a table whose first `names` columns hold names, the others numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        if number < names:
            table.add_column(heading, overflow="fold", min_width=6)
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(_show_cell, row))
    if total is not None:
        table.add_section()
        table.add_row(*map(_show_cell, total))
    Console().print(table)


def _show_cell(value: object) -> Text:
    """A cell whose words are no markup, and stay on their line."""
    from rich.text import Text

    shown = f"{value:.4f}" if isinstance(value, float) else str(value)
    return Text("?" if value is None else escape_control(shown))
