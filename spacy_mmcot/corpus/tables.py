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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import Errors, MMCoTError
from ..files import decode_line, iter_lines, open_file, open_text
from ..messages import first_line, located, shown
from ..types import Post, is_null
from .conll import read_tags, replace_spaces
from .posts import (
    CURE,
    DEFAULTS,
    Findings,
    ReadSettings,
    Row,
    find_split,
    iter_values,
    make_text_id,
    validate_row,
)

SUFFIXES = (".csv", ".tsv", ".parquet", ".arrow", ".jsonl", ".ndjson", ".json")
# The columns of tokens and of their tags in datasets for named entity recognition.
_TOKENS, _TAGS = ("tokens", "words"), ("ner_tags", "tags", "labels", "ner")
_PLAIN = ("image", "caption", "domain")
_DELIMITERS = ",;\t|"
_MAX_CELL = 2**27  # characters: a long document
_IGNORED = "tables with columns that are not read"
_BATCH = 1000  # rows of Parquet at a time

# Number from 0, place, values by column.
Record = tuple[int, str, Mapping[str, Any]]


def read_text_lines(
    path: Path, findings: Findings, settings: ReadSettings = DEFAULTS
) -> Iterator[Row]:
    """A post for each line that is not blank."""
    filled = ((i, raw) for i, raw in iter_lines(path, settings.encoding) if raw.strip())
    for number, (line, raw) in enumerate(filled):
        with findings.checking():
            text = decode_line(path, line, raw).strip()
            post = validate_row(path, line, Post, {"id": make_text_id(text), "text": text})
            yield Row(number, post, f"line {line}")


def read_rows(path: Path, findings: Findings, settings: ReadSettings = DEFAULTS) -> Iterator[Row]:
    """The rows of a table. Raises MMCoTError where it has no column of texts, or not the column of
    ids that the settings name."""
    suffix = path.suffix.lower()
    names: dict[str, list[str]] = {}  # of the tags that a column's numbers stand for
    records: Iterable[Record]
    if suffix in (".csv", ".tsv"):
        records = _iter_csv(path, findings, settings)
    elif suffix in (".parquet", ".arrow"):
        names, records = _open_arrow(path)
    else:
        records = iter_values(path, findings, settings.encoding)
    ignored: set[str] = set()
    for number, place, values in records:
        with findings.checking():
            if not isinstance(values, Mapping):
                raise located(path, place, f"the row is {shown(values)}", "an object", CURE)
            fields, unread = _read_values(path, place, values, names, settings)
            post = validate_row(path, place, Post, fields)
            ignored.update(unread)
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


def read_header(path: Path, settings: ReadSettings) -> list[str]:
    """The columns of a CSV or TSV file, [] where it is empty."""
    return _read_layout(path, settings)[1]


def _read_layout(path: Path, settings: ReadSettings) -> tuple[str, list[str], int]:
    """The delimiter, the columns, and how many lines come before the header: a line `sep=;` is
    Excel's."""
    with open_text(path, settings.encoding) as file:
        lines = ((i, line) for i, line in enumerate(file) if line.strip())
        number, line = next(lines, (0, ""))
        named = re.match(r'"?sep=(.)"?\s*$', line)
        if named:
            number, line = next(lines, (0, ""))
    delimiter = settings.delimiter or (named and named[1]) or _find_delimiter(path, line, settings)
    delimiter = delimiter.replace("\\t", "\t")
    return delimiter, next(csv.reader([line], delimiter=delimiter), []), number


def _find_delimiter(path: Path, header: str, settings: ReadSettings) -> str:
    """The delimiter that makes a column of texts of the header or, of several or none of those, the
    one that makes most columns."""
    cut = {d: next(csv.reader([header], delimiter=d), []) for d in _DELIMITERS}
    good = {d: names for d, names in cut.items() if find_text_column(names, settings)}
    default = "\t" if path.suffix.lower() == ".tsv" else ","
    return max(good or cut, key=lambda d: (len(cut[d]), d == default))


def _iter_csv(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Record]:
    csv.field_size_limit(_MAX_CELL)
    delimiter, header, n_before = _read_layout(path, settings)
    _check_columns(path, header, settings)
    with open_text(path, settings.encoding) as file:
        for _ in range(n_before):
            next(file)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        number = -1
        columns: list[str] = []
        while True:
            start = n_before + reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = f"not CSV ({first_line(error)})"
                findings.reject(located(path, start, reason, "cells with closed quotes", CURE))
                continue
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = cells
                if twice := [name for name in columns if name and columns.count(name) > 1]:
                    problem = f"the header names the column {twice[0]!r} twice"
                    raise located(path, start, problem, "another name for each column", "")
                continue
            number += 1
            if len(cells) != len(columns):
                problem = f"the row has {len(cells)} cells, {shown(delimiter.join(cells))}"
                expected = f"{len(columns)} cells, as in the header"
                findings.reject(located(path, start, problem, expected, CURE))
                continue
            yield number, f"line {start}", dict(zip(columns, cells, strict=True))


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


def _open_arrow(path: Path) -> tuple[dict[str, list[str]], Iterator[Record]]:
    """The names of each column's classes, by the metadata of Hugging Face's datasets, and the rows
    of a Parquet or an Arrow file. Raises MMCoTError without pyarrow, and for another file."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MMCoTError(Errors.E740) from None
    with open_file(path):
        pass
    try:
        if path.suffix.lower() == ".parquet":
            parquet = pyarrow.parquet.ParquetFile(path)
            schema, batches = parquet.schema_arrow, parquet.iter_batches(_BATCH)
        else:
            source = pyarrow.memory_map(str(path))
            try:
                batches = pyarrow.ipc.open_stream(source)
            except pyarrow.ArrowInvalid:
                reader = pyarrow.ipc.open_file(source)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
                schema = reader.schema
            else:
                schema = batches.schema
    except (pyarrow.ArrowException, OSError) as error:
        raise MMCoTError(Errors.E102.format(path=path, reason=first_line(error))) from None
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    names = {column: found for column, f in features.items() if (found := _find_names(f))}
    rows = (row for batch in batches for row in batch.to_pylist())
    return names, ((i, f"row {i + 1}", row) for i, row in enumerate(rows))


def _find_names(feature: Any) -> list[str] | None:
    """The class names of a feature, or of the elements of one that is a list."""
    if isinstance(feature, list):
        return _find_names(feature[0]) if feature else None
    if isinstance(feature, dict):
        return feature.get("names") or _find_names(feature.get("feature"))
    return None


def _read_values(
    path: Path,
    place: str,
    values: Mapping[str, Any],
    names: Mapping[str, list[str]],
    settings: ReadSettings,
) -> tuple[dict[str, Any], set[str]]:
    """A post's fields, and the columns that were not read."""
    column = find_text_column(values, settings)
    tokens = None if settings.text_column else next((c for c in _TOKENS if c in values), None)
    if column is None and tokens is None:
        wanted = settings.text_column or "text"
        problem = f"the row has no {wanted!r}, only {', '.join(map(repr, values)) or 'nothing'}"
        raise located(path, place, problem, "a text; --text-column names its column", CURE)
    id_column = settings.id_column or next((c for c in values if c.strip().lower() == "id"), "id")
    if settings.id_column and settings.id_column not in values:
        problem = f"the row has no {id_column!r}, only {', '.join(map(repr, values))}"
        raise located(path, place, problem, "an id, or no --id-column", CURE)
    fields: dict[str, Any] = {}
    used = {id_column}
    if column is not None:
        used.add(column)
        if not isinstance(values[column], str) or not values[column].strip():
            problem = f"{column} is {shown(values[column])}"
            raise located(path, place, problem, "a text that is not empty", CURE)
        fields["text"] = values[column]
        for name in ("entities", "relations"):
            if not is_null(values.get(name)):
                fields[name] = _parse_cell(path, place, name, values[name])
                used.add(name)
        if "entities" in fields:
            _read_findings(path, place, fields)
    elif tokens is not None:
        tags = next((c for c in _TAGS if c in values), None)
        used |= {tokens, tags or tokens}
        words = [replace_spaces(str(word)) for word in values[tokens] or ()]
        fields["text"] = " ".join(words)
        if tags is not None:
            fields["entities"] = _read_tags(path, place, tags, words, values[tags], names.get(tags))
    own = values.get(id_column)
    fields["id"] = make_text_id(fields["text"]) if is_null(own) else str(own)
    for key in _PLAIN:
        if isinstance(values.get(key), str) and values[key]:
            fields[key] = values[key]
            used.add(key)
    if isinstance(values.get("split"), str) and (split := find_split(values["split"])):
        fields["split"] = split
        used.add("split")
    return fields, {key for key, value in values.items() if key not in used and not is_null(value)}


def _parse_cell(path: Path, place: str, name: str, value: Any) -> list[Any]:
    """A list, or the list whose JSON a cell holds."""
    with suppress(ValueError):
        value = json.loads(value) if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise located(path, place, f"{name} is {shown(value)}", "a list of objects", CURE)
    return value


def _read_findings(path: Path, place: str, fields: dict[str, Any]) -> None:
    """Bring the entities and relations that `annotate` writes into the form of a post's. Raises
    MMCoTError for a relation of other spans."""
    kept = ("start", "end", "label")
    fields["entities"] = [{k: e[k] for k in kept if k in e} for e in fields["entities"]]
    index = {(e.get("start"), e.get("end")): i for i, e in enumerate(fields["entities"])}
    relations = []
    for relation in fields.get("relations", ()):
        row = {k: relation[k] for k in ("head", "tail", "label") if k in relation}
        for role in ("head", "tail"):
            if isinstance(ends := row.get(role), list):
                if tuple(ends) not in index:
                    problem = f"a relation joins {ends}, which is none of the row's entities"
                    raise located(path, place, problem, "relations between entities", CURE)
                row[role] = index[tuple(ends)]
        relations.append(row)
    if "relations" in fields:
        fields["relations"] = relations


def _read_tags(
    path: Path, place: str, column: str, words: list[str], tags: Any, names: list[str] | None
) -> list[dict[str, Any]]:
    """The entities of BIO tags, given as texts or as numbers of the names."""
    if names is not None:
        tags = [names[t] if isinstance(t, int) and 0 <= t < len(names) else t for t in tags]
    if len(tags) != len(words) or not all(isinstance(tag, str) for tag in tags):
        problem = f"{column} is {shown(tags)}, for {len(words)} tokens"
        expected = "a BIO tag for each token, as a text or a number that the file's metadata names"
        raise located(path, place, problem, expected, CURE)
    return read_tags(words, tags)
