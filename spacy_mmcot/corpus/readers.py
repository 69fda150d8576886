"""The training corpus of the config files, `spacy_mmcot.Corpus.v1`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Union

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from ..docs import bare_copy
from ..errors import Errors, MMCoTError
from ..types import ID_KEY, IMAGE_KEY, KNOWLEDGE_KEY, PAIRS_KEY, PROMPT_TARGET_KEY
from .docbin import docbin_paths, read_docs
from .extensions import register

# Union, since Python 3.10 resolves the annotation when spaCy checks a config.
MaybePath = Union[str, Path, None]  # noqa: UP007


def Corpus(
    path: MaybePath, *, limit: int = 0, knowledge: bool = True, gold_entities: bool = False
) -> Callable[[Language], Iterator[Example]]:
    """Read Examples from a `.spacy` file, or from all in a folder.

    The predicted Doc has the reference's tokens, id, picture and prompt target, and its knowledge
    where `knowledge` is set; the reference keeps all it was stored with: entities, relations,
    soft labels. With `gold_entities` the predicted Doc has the reference's entities too, and the
    pairs of them that were judged. `limit` is the greatest number of Examples, 0 for all.

    The reader raises MMCoTError for a path that is not set, missing, no DocBin, or empty.
    """
    register()
    copied: list[Any] = [ID_KEY, IMAGE_KEY, PROMPT_TARGET_KEY]
    if knowledge:
        copied.append(KNOWLEDGE_KEY)
    if gold_entities:
        copied.append(PAIRS_KEY)

    def read(nlp: Language) -> Iterator[Example]:
        if path is None:
            raise MMCoTError(Errors.E204)
        count = 0
        for file in docbin_paths(Path(path)):
            for reference in read_docs(file, nlp.vocab):
                predicted = bare_copy(reference, copied)
                if gold_entities:
                    _copy_entities(reference, predicted)
                yield Example(predicted, reference)
                count += 1
                if count == limit:
                    return

    return read


def _copy_entities(reference: Doc, predicted: Doc) -> None:
    spans = [Span(predicted, ent.start, ent.end, label=ent.label) for ent in reference.ents]
    labelled = reference.has_annotation("ENT_IOB")
    predicted.set_ents(spans, default="outside" if labelled else "missing")
