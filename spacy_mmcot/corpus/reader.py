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

from ..errors import Errors, MMCoTError
from ..pictures.read import (
    BadPicture,
    PicturePolicy,
    encode_picture,
    get_image,
    hash_picture,
    read_picture,
)
from ..types import ID_KEY, KNOWLEDGE_KEY, PAIRS_KEY, PICTURES, PROMPT_TARGET_KEY, Pictures
from .docbin import read_all_docs
from .extensions import copy_tokens, get_judged_pairs, register, set_image

# Union, since Python 3.10 resolves the annotation when spaCy checks a config.
MaybePath = Union[str, Path, None]  # noqa: UP007
Picture = str | bytes

# Fixed, so that scores with shuffled pictures can be compared between runs and machines.
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
    """`spacy_mmcot.Corpus.v1`: reads Examples from a `.spacy` file, or from all in a folder.

    The reference keeps all that it was stored with: entities, relations, soft labels. The predicted
    Doc has the reference's tokens, id and prompt target, and more as the settings say.

    limit: the greatest number of Examples, 0 for all.
    knowledge: the predicted Doc has the reference's knowledge.
    gold_entities: the predicted Doc has the reference's entities, and the pairs of them that were
        judged.
    pictures: what the predicted Doc has where the reference has a picture. "none": nothing; "real":
        that picture; "black": a black one; "shuffled": the picture of another Doc, never one of the
        same content, and the same one whenever the corpus is read. To shuffle, the reader keeps the
        whole corpus in memory and reads its picture files.

    Raises MMCoTError for unknown `pictures`. The reader raises it for a path that is not set,
    missing, no DocBin, or empty, and where all pictures to shuffle are the same one.
    """
    _check_pictures(pictures)

    def read(nlp: Language) -> Iterator[Example]:
        if path is None:
            raise MMCoTError(Errors.E204)
        docs = read_all_docs(Path(path), nlp.vocab)
        yield from make_examples(
            islice(docs, limit if limit > 0 else None),
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

    Raises MMCoTError for unknown `pictures`, and where all pictures to shuffle are the same one.
    """
    _check_pictures(pictures)
    register()
    copied: list[Any] = [ID_KEY, PROMPT_TARGET_KEY]
    if knowledge:
        copied.append(KNOWLEDGE_KEY)
    others: dict[Picture, Picture] = {}
    if pictures == "shuffled":
        references = list(references)
        others = _shuffle(map(get_image, references), source)
    for reference in references:
        predicted = copy_tokens(reference, copied)
        if gold_entities:
            _copy_entities(reference, predicted)
        picture = get_image(reference)
        if picture is not None and pictures != "none":
            shown = _make_black() if pictures == "black" else others.get(picture, picture)
            set_image(predicted, shown)
        yield Example(predicted, reference)


def _check_pictures(pictures: str) -> None:
    if pictures not in PICTURES:
        raise MMCoTError(Errors.E215.format(received=pictures, allowed=", ".join(PICTURES)))


def _copy_entities(reference: Doc, predicted: Doc) -> None:
    """Give the predicted Doc the reference's entities, and the pairs of them that were judged."""
    spans = [Span(predicted, ent.start, ent.end, label=ent.label) for ent in reference.ents]
    labelled = reference.has_annotation("ENT_IOB")
    predicted.set_ents(spans, default="outside" if labelled else "missing")
    pairs = get_judged_pairs(reference)
    if pairs is not None:
        predicted.user_data[PAIRS_KEY] = [list(pair) for pair in pairs]


def _shuffle(pictures: Iterable[Picture | None], path: object) -> dict[Picture, Picture]:
    """For each picture one of another content: the next one in a random circle of all contents, so
    that none stays in its place, however often it is used.

    Raises MMCoTError where all have the same content.
    """
    contents = {picture: _identify(picture) for picture in pictures if picture is not None}
    first_of = {content: picture for picture, content in reversed(contents.items())}
    if len(first_of) == 1:
        raise MMCoTError(Errors.E216.format(path=path))
    order = list(first_of)
    random.Random(_SHUFFLE_SEED).shuffle(order)
    after = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return {picture: first_of[after[content]] for picture, content in contents.items()}


def _identify(picture: Picture) -> Picture:
    """The hash of the picture's bytes; the name of a picture that cannot be read."""
    try:
        return hash_picture(read_picture(picture, PicturePolicy()))
    except BadPicture:
        return picture


@functools.cache
def _make_black() -> Picture:
    return encode_picture(PIL.Image.new("RGB", (_BLACK_SIDE, _BLACK_SIDE)))
