"""What all parts of the package that work on spaCy's Docs share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from .types import IMAGE_KEY


def get_image(doc: Doc) -> str | bytes | None:
    """The Doc's picture, whether or not the extension `mmcot_image` is registered: a path or URL,
    or a file's content; None without one."""
    data: dict[Any, Any] = doc.user_data
    return data.get(IMAGE_KEY)


def bare_copy(doc: Doc, keys: Iterable[Any] | None = None, vocab: Vocab | None = None) -> Doc:
    """A Doc of the same tokens without annotation, and without what a pipeline leaves on a Doc
    (an encoder's states would triple a corpus).

    keys: the entries of the user data to take along, where the Doc has them; None for all.
    vocab: the copy's vocabulary; None for the Doc's own.
    """
    copy = Doc(
        doc.vocab if vocab is None else vocab,
        words=[token.text for token in doc],
        spaces=[bool(token.whitespace_) for token in doc],
    )
    data: dict[Any, Any] = doc.user_data
    wanted = data if keys is None else keys
    copy.user_data.update({key: data[key] for key in wanted if key in data})
    return copy
