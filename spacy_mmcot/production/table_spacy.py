"""`.spacy` files (DocBin). A file is in memory as a whole while it is read or joined, so a large
corpus should be a folder of files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from .. import types
from ..corpus.docbin import load_docbin
from ..corpus.extensions import copy_tokens
from ..pictures.read import get_image
from . import tables
from .tables import Chunk, ColumnNames, Columns, FoundRow, Row

# The keys of user data that a pipeline writes, beside those of spans.
_FOUND = {types.ALIGNMENT_KEY, types.CONFIDENCE_KEY, types.WEAKEST_KEY, types.SOURCE_KEY}
_FOUND |= {types.SOFT_LABELS_KEY, types.SOFT_RELATIONS_KEY}
_LISTS = ("tokens", "spaces", "cats", "span_groups", "flags", "user_data")


def survey(path: Path, rows: int, names: ColumnNames, columns: bool) -> tables.Survey:
    docbin = _docbin(path)
    kinds: Columns = {}
    if columns:
        for doc in docbin.get_docs(Vocab()):
            tables.add_row(kinds, _values(doc, names))
    return tables.split_count(len(docbin), rows), kinds


def read(chunk: Chunk, names: ColumnNames) -> Iterator[Row]:
    """Rows with their Docs as they are in the file; see `copy_unannotated`."""
    for number, doc in enumerate(read_docs(chunk, Vocab()), start=chunk.first_row):
        yield Row(number, _values(doc, names), doc)


def read_docs(chunk: Chunk, vocab: Vocab) -> Iterator[Doc]:
    whole = _docbin(Path(chunk.path))
    part = DocBin(attrs=whole.attrs, store_user_data=True)
    part.strings = whole.strings
    for name in _LISTS:
        setattr(part, name, getattr(whole, name)[chunk.position : chunk.position + chunk.rows])
    return part.get_docs(vocab)


def copy_unannotated(doc: Doc, vocab: Vocab) -> Doc:
    """A Doc on another vocabulary with the same tokens and user data. Annotation is left out: a
    pipeline would take it for its own."""
    # The key of an extension attribute is ("._.", name, start, end); a Doc's has no start.
    keys: list[Any] = [key for key in doc.user_data if key not in _FOUND]
    kept = [k for k in keys if not (isinstance(k, tuple) and len(k) == 4 and k[2] is not None)]
    return copy_tokens(doc, kept, vocab)


def write(path: Path, rows: Iterable[FoundRow], columns: Columns, names: ColumnNames) -> None:
    docbin = DocBin(store_user_data=True)
    own = (names.text, names.id, names.image)
    for values, _, doc in rows:
        data: dict[Any, Any] = doc.user_data
        others = {name: _pack(value) for name, value in values.items() if name not in own}
        if others:
            data[types.ROW_KEY] = others
        # The encoder's output would make the file many times as large.
        data.pop(("._.", "trf_data", None, None), None)
        docbin.add(doc)
    path.write_bytes(docbin.to_bytes())


def _pack(value: Any) -> Any:
    """The value as msgpack can hold it: whole numbers of more than 64 bits become text."""
    value = tables.to_plain(value)
    if isinstance(value, dict):
        return {name: _pack(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_pack(part) for part in value]
    is_large = isinstance(value, int) and not -(2**63) <= value < 2**64
    return str(value) if is_large else value


def join(parts: Sequence[Path], output: Path, columns: Columns, names: ColumnNames) -> None:
    whole = DocBin(store_user_data=True)
    for part in parts:
        whole.merge(DocBin(store_user_data=True).from_bytes(part.read_bytes()))
    output.write_bytes(whole.to_bytes())


def _values(doc: Doc, names: ColumnNames) -> dict[str, Any]:
    values: dict[str, Any] = {names.text: doc.text}
    for name, value in ((names.id, doc.user_data.get(types.ID_KEY)), (names.image, get_image(doc))):
        if value is not None:
            values[name] = value
    return values | doc.user_data.get(types.ROW_KEY, {})


# A worker reads the chunks of a file one after the other.
_docbin = functools.lru_cache(maxsize=1)(load_docbin)
