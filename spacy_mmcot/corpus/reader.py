"""The training corpus of the config files, `spacy_mmcot.Corpus.v1`."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Union

import PIL.Image
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab

from ..docs import bare_copy
from ..errors import Errors, MMCoTError
from ..pictures.read import BadPicture, PicturePolicy, digest, read_picture, stored_picture
from ..types import ID_KEY, KNOWLEDGE_KEY, PAIRS_KEY, PICTURES, PROMPT_TARGET_KEY, Pictures
from .docbin import read_all
from .extensions import get_image, get_judged_pairs, register, set_image

# Union, since Python 3.10 resolves the annotation when spaCy checks a config.
MaybePath = Union[str, Path, None]  # noqa: UP007
Picture = str | bytes

# Figures on shuffled pictures compare over runs and machines only while all shuffle alike.
_SHUFFLE_SEED = 1
_BLACK_SIDE = 64


def Corpus(
    path: MaybePath,
    *,
    limit: int = 0,
    knowledge: bool = True,
    gold_entities: bool = False,
    pictures: Pictures = "none",
) -> Callable[[Language], Iterator[Example]]:
    """Read Examples from a `.spacy` file, or from all in a folder.

    The predicted Doc has the reference's tokens, id and prompt target, and its knowledge where
    `knowledge` is set; the reference keeps all it was stored with: entities, relations, soft
    labels. With `gold_entities` the predicted Doc has the reference's entities too, and the pairs
    of them that were judged. `limit` is the greatest number of Examples, 0 for all.

    `pictures` says what the predicted Doc has where the reference has a picture: "none" nothing,
    "real" that picture, "black" a black one, "shuffled" the picture of another Doc, never one of
    the same content, and the same one whenever the corpus is read. To shuffle, the reader holds
    the whole corpus in memory and reads its picture files.

    Raises MMCoTError for unknown `pictures`; the reader does for a path that is not set, missing,
    no DocBin, or empty, and where there is but one picture to shuffle.
    """
    _check_pictures(pictures)

    def read(nlp: Language) -> Iterator[Example]:
        if path is None:
            raise MMCoTError(Errors.E204)
        yield from make_examples(
            _references(Path(path), limit, nlp.vocab),
            knowledge=knowledge,
            gold_entities=gold_entities,
            pictures=pictures,
            source=path,
        )

    return read


def make_examples(
    references: Iterable[Doc],
    *,
    knowledge: bool = True,
    gold_entities: bool = False,
    pictures: Pictures = "none",
    source: object = "the docs",
) -> Iterator[Example]:
    """Examples of these reference Docs, as `Corpus` describes them.

    source: what messages call the Docs.

    Raises MMCoTError for unknown `pictures`, and where there is but one picture to shuffle.
    """
    _check_pictures(pictures)
    register()
    copied: list[Any] = [ID_KEY, PROMPT_TARGET_KEY]
    if knowledge:
        copied.append(KNOWLEDGE_KEY)
    others: dict[Picture, Picture] = {}
    if pictures == "shuffled":
        references = list(references)
        others = _shuffled(map(get_image, references), source)
    for reference in references:
        predicted = bare_copy(reference, copied)
        if gold_entities:
            _copy_entities(reference, predicted)
            pairs = get_judged_pairs(reference)
            if pairs is not None:
                predicted.user_data[PAIRS_KEY] = [list(pair) for pair in pairs]
        picture = get_image(reference)
        if picture is not None and pictures != "none":
            shown = _black() if pictures == "black" else others.get(picture, picture)
            set_image(predicted, shown)
        yield Example(predicted, reference)


def _check_pictures(pictures: str) -> None:
    if pictures not in PICTURES:
        raise MMCoTError(Errors.E215.format(received=pictures, allowed=", ".join(PICTURES)))


def _references(path: Path, limit: int, vocab: Vocab) -> Iterator[Doc]:
    docs = read_all(path, vocab)
    return islice(docs, limit if limit > 0 else None)


def _copy_entities(reference: Doc, predicted: Doc) -> None:
    spans = [Span(predicted, ent.start, ent.end, label=ent.label) for ent in reference.ents]
    labelled = reference.has_annotation("ENT_IOB")
    predicted.set_ents(spans, default="outside" if labelled else "missing")


def _shuffled(pictures: Iterable[Picture | None], path: object) -> dict[Picture, Picture]:
    """For each picture one of another content: the next on a random round through all contents,
    which leaves no picture in its place, however often one is used.

    Raises MMCoTError where all have the same content.
    """
    contents = {picture: _content(picture) for picture in pictures if picture is not None}
    first_of: dict[Picture, Picture] = {}
    for picture, content in contents.items():
        first_of.setdefault(content, picture)
    if len(first_of) == 1:
        raise MMCoTError(Errors.E216.format(path=path))
    order = list(first_of)
    random.Random(_SHUFFLE_SEED).shuffle(order)
    after = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return {picture: first_of[after[content]] for picture, content in contents.items()}


def _content(picture: Picture) -> Picture:
    """The digest of the picture's bytes; of what cannot be read, as a web address, its name."""
    try:
        return digest(read_picture(picture, PicturePolicy()))
    except BadPicture:
        return picture


@functools.cache
def _black() -> Picture:
    return stored_picture(PIL.Image.new("RGB", (_BLACK_SIDE, _BLACK_SIDE)))
