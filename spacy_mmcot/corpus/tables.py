"""Tables of texts: CSV, TSV, Parquet, the Arrow files of Hugging Face datasets, JSON Lines with
columns of their own, and plain files with one text a line.

A table has a column of texts, or one of tokens with their tags. Columns `id`, `image`, `caption`,
`split` and `domain` are read where they are there, as are the `entities` and `relations` that
`annotate` writes.
"""

from __future__ import annotations

import csv
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import Errors, MMCoTError, UsageError
from ..files import catch_read_errors, decode_line, open_text
from ..messages import first_line, located, shown
from ..types import Entity, Post, PostRelation, is_null
from . import posts
from .conll import TAG, read_tags, replace_spaces
from .posts import BadRow, Findings, ReadSettings, Row

# The columns of tokens and of their tags in datasets for named entity recognition.
_TOKENS, _TAGS = ("tokens", "words"), ("ner_tags", "tags", "labels", "ner")
_PLAIN = ("image", "caption", "domain")
_PARTIAL = ("pairs", "missing", "rejected")
_DELIMITERS = ",;\t|"
_MAX_CELL = 2**27  # characters: a long document
_IGNORED = "tables with columns that are not read"
_RUN_TOGETHER = "cells with tabs and line breaks: a quote that is not closed joins rows"
_BATCH = 1000  # rows of Parquet and Arrow at a time
_EXPECTED_TAGS = (
    "O or B-LABEL, I-LABEL... for each token, or numbers that the file's metadata names"
)

# Number from 0, place, values by column.
Record = tuple[int, str, Mapping[str, Any]]


def read_text_lines(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """A post for each line that is not blank."""
    for number, (line, raw) in enumerate(posts.iter_filled_lines(path, settings.encoding)):
        with findings.checking(path, line):
            text = decode_line(path, line, raw).strip()
            yield Row(number, Post(id=posts.make_text_id(text), text=text), f"line {line}")


def read_rows(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """The rows of a table. Raises MMCoTError where it has no column of texts, or not the column of
    ids that the settings name."""
    records: Iterable[Record]
    if path.suffix.lower() in (".csv", ".tsv"):
        records = _iter_csv(path, findings, settings)
    elif path.suffix.lower() in (".parquet", ".arrow"):
        records = _iter_arrow(path)
    else:
        records = posts.iter_values(path, findings, settings.encoding)
    ignored: set[str] = set()
    for number, place, values in records:
        with findings.checking(path, place):
            if not isinstance(values, Mapping):
                raise BadRow(f"the row is {shown(values)}", "an object")
            if isinstance(image := read_image(values.get("image")), bytes):
                image = f"data:;base64,{b64encode(image).decode()}"
            values = {**values, "image": image} if "image" in values else values
            fields, used = _read_values(values, settings)
            if bad := [values[k] for k in used if isinstance(values.get(k), BadText)]:
                raise BadRow(bad[0], "text in UTF-8")
            post = Post.model_validate(fields)
            ignored.update(k for k, v in values.items() if k not in used and not is_null(v))
            yield Row(number, post, place)
    if ignored:
        findings.change(_IGNORED, f"{path}: {', '.join(sorted(ignored))}")


def find_text_column(columns: Iterable[str], settings: ReadSettings) -> str | None:
    """The column of texts: that of the settings, or `text` in any case."""
    wanted = settings.text_column
    columns = list(columns)
    if wanted is not None:
        return wanted if wanted in columns else None
    return next((c for c in columns if c.strip().lower() == "text"), None)


def read_layout(path: Path, settings: ReadSettings) -> tuple[str, list[str], int]:
    """The delimiter of a CSV or TSV file, its columns, and how many lines come before the header,
    such as Excel's `sep=;`."""
    with open_text(path, settings.encoding) as file:
        lines = ((i, line) for i, line in enumerate(file) if line.strip())
        number, line = next(lines, (0, ""))
        named = re.match(r'"?sep=(.)"?\s*$', line)
        if named:
            number, line = next(lines, (0, ""))
    delimiter = settings.delimiter or (named and named[1]) or _find_delimiter(path, line, settings)
    delimiter = delimiter.replace("\\t", "\t")
    if len(delimiter) != 1:
        fields = {"name": "--delimiter", "received": repr(delimiter)}
        raise UsageError(Errors.E409.format(**fields, allowed="one character, or \\t"))
    return delimiter, next(csv.reader([line], delimiter=delimiter), []), number


def _find_delimiter(path: Path, header: str, settings: ReadSettings) -> str:
    """The delimiter with which the header has a column of texts; of several or none of those, the
    one that gives most columns."""
    cut = {d: next(csv.reader([header], delimiter=d), []) for d in _DELIMITERS}
    good = {d: names for d, names in cut.items() if find_text_column(names, settings)}
    default = "\t" if path.suffix.lower() == ".tsv" else ","
    return max(good or cut, key=lambda d: (len(cut[d]), d == default))


def _iter_csv(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Record]:
    csv.field_size_limit(_MAX_CELL)
    delimiter, header, skipped = read_layout(path, settings)
    _check_columns(path, header, settings)
    if twice := [name for name in header if name and header.count(name) > 1]:
        problem = f"the header names the column {twice[0]!r} twice"
        raise located(path, skipped + 1, problem, "another name for each column")
    columns: list[str] | None = None
    number = 0
    with open_text(path, settings.encoding) as file:
        reader = csv.reader(islice(file, skipped, None), delimiter=delimiter, strict=True)
        while True:
            line = skipped + reader.line_num + 1
            with findings.checking(path, line):
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    last = skipped + reader.line_num
                    problem = f"not CSV ({first_line(error)}), read up to line {last}"
                    raise BadRow(problem, "cells with closed quotes") from None
                if cells is None:
                    return
                if not any(map(str.strip, cells)):
                    continue
                if columns is None:
                    columns = cells
                    continue
                number += 1
                if len(cells) != len(columns):
                    problem = f"the row has {len(cells)} cells, {shown(delimiter.join(cells))}"
                    raise BadRow(problem, f"{len(columns)} cells, as in the header")
                if delimiter == "\t" and any("\t" in cell and "\n" in cell for cell in cells):
                    findings.change(_RUN_TOGETHER, f"{path}, line {line}")
                yield number - 1, f"line {line}", dict(zip(columns, cells, strict=True))


def _check_columns(path: Path, columns: Iterable[str], settings: ReadSettings) -> None:
    """Raises MMCoTError where a column of the settings, or any column of texts, is missing."""
    shown_columns = ", ".join(columns) or "none"
    has_tokens = not settings.text_column and not {*columns}.isdisjoint(_TOKENS)
    if find_text_column(columns, settings) is None and not has_tokens:
        name = settings.text_column or "text"
        raise MMCoTError(Errors.E107.format(path=path, name=name, columns=shown_columns))
    if settings.id_column and settings.id_column not in columns:
        name = settings.id_column
        raise MMCoTError(Errors.E108.format(path=path, name=name, columns=shown_columns))


def _iter_arrow(path: Path) -> Iterator[Record]:
    """The rows of a Parquet or an Arrow file, tags by their names. Raises MMCoTError without
    pyarrow, and for another file."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MMCoTError(Errors.E740) from None
    try:
        with catch_read_errors(path):
            if path.suffix.lower() == ".parquet":
                parquet = pyarrow.parquet.ParquetFile(path)
                schema, batches = parquet.schema_arrow, parquet.iter_batches(_BATCH)
            else:
                source = pyarrow.memory_map(str(path))
                try:
                    reader = pyarrow.ipc.open_stream(source)
                except pyarrow.ArrowInvalid:
                    reader = pyarrow.ipc.open_file(source)
                table = reader.read_all()  # its columns stay in the mapped file
                schema, batches = table.schema, table.to_batches(_BATCH)
            # What the numbers of classes stand for is in the metadata of Hugging Face's datasets.
            metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            features = metadata.get("info", {}).get("features", {})
            classes = {column: _find_names(features.get(column)) for column in _TAGS}
            rows = (row for batch in batches for row in zip(*map(read_cells, batch), strict=True))
            for number, cells in enumerate(rows):
                row = dict(zip(schema.names, cells, strict=True))
                for column, names in classes.items():
                    if names is not None and row.get(column) is not None:
                        row[column] = [_name_class(tag, names) for tag in row[column]]
                yield number, f"row {number + 1}", row
    except pyarrow.ArrowException as error:
        raise MMCoTError(Errors.E102.format(path=path, reason=first_line(error))) from None


class BadText(str):
    """Why a value is not text."""


def read_cells(column: Any) -> list[Any]:
    """The values of an Arrow array. One that Python has no type for stays an Arrow scalar."""
    if hasattr(column, "dictionary_decode"):
        column = column.dictionary_decode()
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_read_text(value) for value in column]
    except (ValueError, OverflowError):  # finer times or later dates than Python has
        return [value if value.is_valid else None for value in column]


def _read_text(value: Any) -> Any:
    """A value of a column with a text that is not UTF-8."""
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return BadText(f"0x{error.object[error.start]:02x} is not UTF-8")


def read_image(value: Any) -> Any:
    """A picture as a table holds it: a path or a file's content. The `datasets` library keeps both
    in a dict."""
    value = value.as_py() if hasattr(value, "as_py") else value
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        return value.get("bytes") or value.get("path")
    return value


def _find_names(feature: Any) -> list[str] | None:
    """The class names of a feature that is a list of classes."""
    match feature:
        case {"feature": {"names": [*names]}} | [{"names": [*names]}, *_]:
            return names
    return None


def _name_class(tag: Any, names: list[str]) -> Any:
    return names[tag] if isinstance(tag, int) and 0 <= tag < len(names) else tag


def _read_values(
    values: Mapping[str, Any], settings: ReadSettings
) -> tuple[dict[str, Any], set[str]]:
    """A post's fields, and the columns that were read."""
    column = find_text_column(values, settings)
    tokens = None if settings.text_column else next((c for c in _TOKENS if c in values), None)
    if tokens and "entities" not in values and any(isinstance(values.get(x), list) for x in _TAGS):
        column = None  # labelled tokens tell more than the text beside them
    id_column = settings.id_column or next((c for c in values if c.strip().lower() == "id"), "id")
    known = ", ".join(map(repr, values)) or "nothing"
    if column is None and tokens is None:
        problem = f"the row has no {settings.text_column or 'text'!r}, only {known}"
        raise BadRow(problem, "a text; --text-column names its column")
    if settings.id_column and id_column not in values:
        problem = f"the row has no {id_column!r}, only {known}"
        raise BadRow(problem, "an id, or no --id-column")
    fields = {k: values[k] for k in _PLAIN if isinstance(values.get(k), str) and values[k]}
    if split := posts.find_split(str(values.get("split"))):
        fields["split"] = split
    elif not settings.split and not is_null(values.get("split")):
        expected = "train, unlabelled, dev (or validation) or test; --split sets that of all rows"
        raise BadRow(f"split is {shown(values['split'])}", expected)
    used = {id_column, *fields}
    if column is not None:
        text = values[column]
        if not isinstance(text, str) or not text.strip():
            raise BadRow(f"{column} is {shown(text)}", "a text that is not empty")
        items: dict[str, Any] = _read_items(values)
        if "entities" in items:  # a table of posts with further columns
            items |= {k: values[k] for k in _PARTIAL if not is_null(values.get(k))}
        fields |= {"text": text, **items}
        used |= {column, *items}
    elif tokens is not None:
        words = values[tokens]
        if not isinstance(words, list):
            raise BadRow(f"{tokens} is {shown(words)}", "a list of tokens")
        words = [replace_spaces(str(word)) for word in words]
        fields["text"] = " ".join(words)
        used.add(tokens)
        if column := next((c for c in _TAGS if values.get(c) is not None), None):
            used.add(column)
            tags = values[column]
            problem = f"{column} is {shown(tags)}, for {len(words)} tokens"
            if not isinstance(tags, list) or len(tags) != len(words):
                raise BadRow(problem, _EXPECTED_TAGS)
            if odd := [tag for tag in tags if not isinstance(tag, str) or not TAG.fullmatch(tag)]:
                raise BadRow(f"{problem}, among them {odd[0]!r}", _EXPECTED_TAGS)
            fields["entities"] = read_tags(words, tags)
    own = values.get(id_column)
    return {**fields, "id": posts.make_text_id(fields["text"]) if is_null(own) else str(own)}, used


def _read_items(values: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Entities and relations as a post has them, or as `annotate` writes them: with more fields,
    and with relations of offsets. A cell may hold their JSON."""
    fields: dict[str, list[dict[str, Any]]] = {}
    for name, model in (("entities", Entity), ("relations", PostRelation)):
        if is_null(value := values.get(name)):
            continue
        with suppress(ValueError):
            value = json.loads(value) if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise BadRow(f"{name} is {shown(value)}", "a list of objects")
        fields[name] = [{k: item[k] for k in model.model_fields if k in item} for item in value]
    offsets = [[entity.get("start"), entity.get("end")] for entity in fields.get("entities", ())]
    for relation in fields.get("relations", ()):
        for role in ("head", "tail"):
            if isinstance(ends := relation.get(role), list):
                relation[role] = posts.find_entity(offsets, ends)
    return fields
