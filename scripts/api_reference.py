"""Write docs/API.md from the docstrings of the public names and of the registered ones.

python scripts/api_reference.py           write the page
python scripts/api_reference.py --check   exit code 1 if the page is out of date
"""

from __future__ import annotations

import configparser
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import spacy_mmcot

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "API.md"

INTRODUCTION = """\
# API

This page is generated from the docstrings by `python scripts/api_reference.py`. It lists the
public names, all importable from `spacy_mmcot`, and the names that configs may use. Everything
else may change without notice.

```python
from spacy_mmcot import attach, read_posts
```
"""

# Section -> modules, as the start of their path under spacy_mmcot. The first match counts.
SECTIONS = {
    "Docs": ["corpus.extensions"],
    "Corpus files": ["corpus", "types", "scheme"],
    "Elicitation": ["elicitation"],
    "Distillation": ["distillation"],
    "Evaluation": ["evaluation"],
    "Production": ["production"],
    "Pictures": ["pictures", "model"],
    "Errors and version": [""],
}

# Section -> groups of entry points in setup.cfg.
REGISTERED = {
    "Components": ["spacy_factories"],
    "Architectures": ["spacy_architectures"],
    "Readers and scorers": ["spacy_readers", "spacy_scorers"],
    "Other registered functions": [
        "spacy_misc",
        "spacy_callbacks",
        "spacy_annotation_setters",
        "spacy_loggers",
    ],
}

# A line that starts an item of a list of arguments or attributes: "batch_size: docs a batch."
ITEM = re.compile(r"(`?)((?:doc\._\.|span\._\.)?[a-z_0-9]+(?:, [a-z_0-9]+)*)\1: ")
LINE_LENGTH = 88
LONGEST_ALIAS = 60  # characters of a type alias that is spelled out in a signature

# Classes that users create and pass on. Their methods are internal.
OPAQUE = {"AnswerStore", "RecordedSource", "Prompt"}


def write_page() -> str:
    parts = [INTRODUCTION]
    for section in SECTIONS:
        names = [name for name in spacy_mmcot.__all__ if _section(name) == section]
        parts += [f"## {section}\n"] if names else []
        parts += [_entry(name, _public(name)) for name in names]
    for section, groups in REGISTERED.items():
        parts.append(f"## {section}\n")
        for name, path in _registered(groups):
            parts.append(_entry(name, _load(path), registered=True))
    return "\n".join(parts)


def _section(name: str) -> str:
    module = getattr(_public(name), "__module__", "").removeprefix("spacy_mmcot.")
    for section, starts in SECTIONS.items():
        if any(not start or f"{module}.".startswith(f"{start}.") for start in starts):
            return section
    raise AssertionError(module)


def _public(name: str) -> Any:
    return getattr(spacy_mmcot, name)


def _registered(groups: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(registered name, module:attribute) of each entry point of the groups."""
    setup = configparser.ConfigParser()
    setup.optionxform = str  # type: ignore[method-assign, assignment]
    setup.read(ROOT / "setup.cfg")
    for group in groups:
        for line in setup["options.entry_points"][group].strip().splitlines():
            name, _, path = line.partition(" = ")
            yield name, path


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _entry(name: str, value: Any, registered: bool = False) -> str:
    """Heading, signature and description of one name."""
    shown = name.replace("_", r"\_") if name.startswith("__") else name
    if isinstance(value, str):
        return _join(f"### {shown}", _fence([f"{name}: str"]), f"`{value!r}` in this version.")
    if name.startswith("mmcot_"):
        # A component: its settings with the defaults of its factory.
        parts = [_fence(_factory_lines(name, value)), *_description(value)]
    elif getattr(value, "_is_protocol", False):
        parts = [_fence(_protocol_lines(name, value)), *_description(value)]
    elif inspect.isclass(value) and issubclass(value, Exception):
        base = value.__mro__[1].__name__
        parts = [_fence([f"class {name}({base})"]), *_description(value)]
    else:
        parts = [_fence(_signature_lines(value)), *_description(value)]
        if inspect.isclass(value) and not hasattr(value, "model_fields") and name not in OPAQUE:
            parts += _methods(name, value)
    if registered:
        parts[1] = _without_name(parts[1], name)
    return _join(f"### {shown}", *parts)


def _join(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"


def _without_name(text: str, name: str) -> str:
    """The text without the registered name at its start, which is the heading."""
    rest = re.sub(rf"^`{re.escape(name)}`(: |, )", "", text)
    return rest[0].upper() + rest[1:]


def _methods(owner: str, value: type) -> Iterator[str]:
    """The documented methods and properties that the class itself defines."""
    for name, member in vars(value).items():
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        yield f"#### {owner}.{name}"
        yield _fence(_member_lines(name, member))
        yield from _description(function)


def _protocol_lines(name: str, value: type) -> list[str]:
    lines = [f"class {name}(Protocol):"]
    for member_name, member in vars(value).items():
        if not member_name.startswith("_"):
            lines += [f"    {line}" for line in _member_lines(member_name, member)]
    return lines


def _member_lines(name: str, member: Any) -> list[str]:
    if isinstance(member, property):
        found = inspect.signature(member.fget)
        return [f"{name}: {_plain(found.return_annotation, member.fget.__globals__)}"]
    lines = _signature_lines(member)
    return [f"async {lines[0]}", *lines[1:]] if inspect.iscoroutinefunction(member) else lines


def _factory_lines(name: str, factory: Any) -> list[str]:
    """The settings of a component with the defaults of its factory."""
    from spacy.language import Language

    defaults = Language.get_factory_meta(name).default_config
    parameters = []
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.name not in ("nlp", "name"):
            default = defaults[parameter.name]
            if isinstance(default, dict):
                default = {key: text for key, text in default.items() if key.startswith("@")}
            parameters.append(parameter.replace(default=default))
    return _layout(name, parameters, None, vars(sys.modules[factory.__module__]))


def _signature_lines(value: Any) -> list[str]:
    found = inspect.signature(value)
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    # A method's own module, not that of the class that inherits it, defines its annotations' names.
    namespace = getattr(value, "__globals__", None) or vars(sys.modules[value.__module__])
    returns = None if inspect.isclass(value) else found.return_annotation
    return _layout(value.__name__, parameters, returns, namespace)


def _layout(
    name: str, parameters: list[inspect.Parameter], returns: Any, namespace: dict[str, Any]
) -> list[str]:
    """One line if it fits, otherwise a line for each parameter."""
    shown: list[str] = []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not any(
            text.startswith("*") for text in shown
        ):
            shown.append("*")
        shown.append(_parameter(parameter, namespace))
    has_result = returns not in (inspect.Signature.empty, None, "None")
    end = f" -> {_plain(returns, namespace)}" if has_result else ""
    line = f"{name}({', '.join(shown)}){end}"
    if len(line) <= LINE_LENGTH:
        return [line]
    return [f"{name}(", *(f"    {part}," for part in shown), f"){end}"]


def _parameter(parameter: inspect.Parameter, namespace: dict[str, Any]) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    text = stars.get(parameter.kind, "") + parameter.name
    has_annotation = parameter.annotation is not inspect.Parameter.empty
    if has_annotation:
        text += f": {_plain(parameter.annotation, namespace)}"
    if parameter.default is not inspect.Parameter.empty:
        shown = repr(parameter.default)
        # Functions, and the default factories of dataclasses.
        default = "..." if callable(parameter.default) or shown.startswith("<") else shown
        text += f" = {default}" if has_annotation else f"={default}"
    return text


def _plain(annotation: Any, namespace: dict[str, Any]) -> str:
    """An annotation as a reader wants it: no module paths, no quotes, short aliases spelled out."""
    if not isinstance(annotation, str):
        return _type(annotation)
    text = re.sub(r"Annotated\[(\w+), [^\]]*\]", r"\1", annotation.strip("'\""))
    parts = re.split(r"(Literal\[[^\]]*\])", text)
    for i in range(0, len(parts), 2):
        part = re.sub(r"\b(?:[a-z_0-9]+\.)+(?=[A-Za-z])", "", parts[i].replace("'", ""))
        parts[i] = re.sub(r"\w+", lambda word: _spelled_out(word[0], namespace), part)
    return "".join(parts)


def _spelled_out(word: str, namespace: dict[str, Any]) -> str:
    aliases = (typing.Annotated, typing.Literal, typing.Union, types.UnionType)
    if typing.get_origin(namespace.get(word)) not in aliases:
        return word
    text = _type(namespace[word])
    return text if len(text) <= LONGEST_ALIAS else word


def _type(value: Any) -> str:
    origin, arguments = typing.get_origin(value), typing.get_args(value)
    if value is None or value is type(None):
        return "None"
    if value is ...:
        return "..."
    if isinstance(value, list):
        return f"[{', '.join(map(_type, value))}]"
    if isinstance(value, typing.ForwardRef):
        return value.__forward_arg__
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        text = f"Literal[{', '.join(map(repr, arguments))}]"
        return text if len(text) <= LONGEST_ALIAS else "str"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type, arguments))
    name = getattr(origin or value, "__name__", str(value))
    return f"{name}[{', '.join(map(_type, arguments))}]" if arguments else name


def _description(value: Any) -> Iterator[str]:
    """The docstring as Markdown: paragraphs on one line each, lists of arguments as lists."""
    text = inspect.getdoc(value)
    if not text or (inspect.isclass(value) and "__doc__" not in vars(value)):
        raise SystemExit(f"{value.__module__}.{value.__qualname__} has no docstring")
    for paragraph in text.split("\n\n"):
        items: list[str] = []
        for line in paragraph.splitlines():
            if ITEM.match(line) and (not items or items[-1].endswith((".", ":"))):
                items.append(ITEM.sub(r"- `\2`: ", line, count=1))
            elif items:
                items[-1] += " " + line.strip()
            else:
                items.append(line.strip())
        # Markdown wants a blank line between a paragraph and the list that follows it.
        start = 0 if items[0].startswith("- ") else 1
        yield from items[:start]
        if items[start:]:
            yield "\n".join(items[start:])


def _fence(lines: list[str]) -> str:
    # Kind "text", not "python": signatures cannot be run.
    return "\n".join(["```text", *lines, "```"])


def main() -> None:
    text = write_page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text("utf-8") != text:
            raise SystemExit(f"{PAGE.name} is out of date: run python scripts/api_reference.py")
        return
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
