"""From records of text and picture to Docs that a pipeline takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError, shown
from ..pictures.read import BadPicture
from ..pictures.stored import stored_picture
from ..types import ID_KEY, IMAGE_KEY, Post
from .extensions import register

Record = Post | Mapping[str, Any] | tuple[str, Any] | list[Any]


def attach(
    nlp: Language,
    records: Iterable[Record],
    *,
    text: str = "text",
    image: str = "image",
    id: str = "id",
) -> Iterator[Doc]:
    """Docs with their pictures, one at a time, to predict on: `nlp.pipe(attach(nlp, records))`.

    A record is a Post, a dict whose keys `text`, `image` and `id` name, or a pair (text, image).
    An image is what `doc._.mmcot_image` takes; a key that is absent, or null (None, "" or NaN), is
    no picture, and no id. A Doc is `nlp.make_doc(text)` with the picture and the id; the entities
    that a Post may hold are left out. Relative paths stay relative to the working directory.

    Raises MMCoTError for the first record that is none of these, with its number from 1.
    """
    register()
    try:
        rows = iter(records)
    except TypeError:
        raise MMCoTError(Errors.E212.format(received=_shown(records))) from None
    for number, record in enumerate(rows, start=1):
        try:
            fields = _fields(record, text, image, id)
            doc = _doc(nlp, fields, number)
        except BadPicture as error:
            problem = f"the picture {error}"
        except _BadRecord as error:
            problem = str(error)
        else:
            yield doc
            continue
        keys = ", ".join(map(repr, (text, image, id)))
        raise MMCoTError(Errors.E210.format(number=number, problem=problem, keys=keys))


class _BadRecord(ValueError):
    """What is wrong with a record."""


class _Fields(NamedTuple):
    text: Any
    image: Any
    id: Any


def _fields(record: object, text: str, image: str, id: str) -> _Fields:
    if isinstance(record, Post):
        return _Fields(record.text, record.image, record.id)
    if isinstance(record, Mapping):
        if text not in record:
            keys = ", ".join(map(repr, record)) or "none"
            raise _BadRecord(f"the dict has no key {text!r} for the text, its keys are {keys}")
        return _Fields(record[text], record.get(image), record.get(id))
    if isinstance(record, tuple | list) and len(record) == 2:
        return _Fields(record[0], record[1], None)
    raise _BadRecord(f"received {_shown(record)}")


def _doc(nlp: Language, fields: _Fields, number: int) -> Doc:
    text, image, name = fields
    if not isinstance(text, str):
        raise _BadRecord(f"the text is {_shown(text)}")
    if not _is_null(name) and (not isinstance(name, str | Integral) or isinstance(name, bool)):
        raise _BadRecord(f"the id is {_shown(name)}")
    if len(text) > nlp.max_length:
        message = Errors.E211.format(number=number, length=len(text), limit=nlp.max_length)
        raise MMCoTError(message)
    doc = nlp.make_doc(text)
    data: dict[Any, Any] = doc.user_data
    if not _is_null(name):
        data[ID_KEY] = str(name)
    if not _is_null(image):
        data[IMAGE_KEY] = stored_picture(image)
    return doc


def _is_null(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, str) and not value)
        or (isinstance(value, float) and math.isnan(value))
    )


def _shown(value: object) -> str:
    return f"{shown(value)} ({type(value).__qualname__})"
