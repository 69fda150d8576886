"""The training corpus of the config files, `spacy_mmcot.Corpus.v1`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Union

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from ..errors import Errors, MMCoTError
from ..types import ID_KEY, IMAGE_KEY, KNOWLEDGE_KEY, PROMPT_TARGET_KEY
from .docbin import docbin_paths, read_docs
from .extensions import register

# Union, since Python 3.10 resolves the annotation when spaCy checks a config.
MaybePath = Union[str, Path, None]  # noqa: UP007


def Corpus(
    path: MaybePath, *, limit: int = 0, knowledge: bool = True
) -> Callable[[Language], Iterator[Example]]:
    """Read Examples from a `.spacy` file, or from all in a folder.

    The predicted Doc has the reference's tokens, id, picture and prompt target, and its knowledge
    where `knowledge` is set; the reference keeps all it was stored with: entities, relations,
    soft labels. `limit` is the greatest number of Examples, 0 for all.

    The reader raises MMCoTError for a path that is not set, missing, no DocBin, or empty.
    """
    register()
    copied: list[Any] = [ID_KEY, IMAGE_KEY, PROMPT_TARGET_KEY]
    if knowledge:
        copied.append(KNOWLEDGE_KEY)

    def read(nlp: Language) -> Iterator[Example]:
        if path is None:
            raise MMCoTError(Errors.E204)
        count = 0
        for file in docbin_paths(Path(path)):
            for reference in read_docs(file, nlp.vocab):
                yield Example(_unlabelled_copy(reference, copied), reference)
                count += 1
                if count == limit:
                    return

    return read


def _unlabelled_copy(reference: Doc, keys: list[Any]) -> Doc:
    """A Doc of the same tokens that holds these entries of the user data and no annotation."""
    predicted = Doc(
        reference.vocab,
        words=[token.text for token in reference],
        spaces=[bool(token.whitespace_) for token in reference],
    )
    for key in keys:
        if key in reference.user_data:
            predicted.user_data[key] = reference.user_data[key]
    return predicted
