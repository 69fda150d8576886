"""The training corpus of the config files, `spacy_mmcot.Corpus.v1`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Union

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from ..errors import Errors, MMCoTError
from ..types import (
    ID_KEY,
    IMAGE_KEY,
    KNOWLEDGE_KEY,
    PICTURES,
    PROMPT_TARGET_KEY,
    TOKENS,
    Pictures,
    Tokens,
)
from .docbin import read_all_docs
from .extensions import copy_entities, copy_tokens, register_extensions

# Union, since Python 3.10 resolves the annotation when spaCy checks a config.
MaybePath = Union[str, Path, None]  # noqa: UP007


def Corpus(
    path: MaybePath,
    *,
    limit: int = 0,
    knowledge: bool = True,
    gold_entities: bool = False,
    pictures: Pictures = "none",
    tokens: Tokens = "gold",
) -> Callable[[Language], Iterator[Example]]:
    """`spacy_mmcot.Corpus.v1`: reads Examples from a `.spacy` file, or from all in a folder.

    The reference keeps all that it was stored with: entities, relations, soft labels. The predicted
    Doc has the reference's text, id and prompt target, and more as the settings say.

    limit: the greatest number of Examples, 0 for all.
    knowledge: the predicted Doc has the reference's knowledge.
    gold_entities: the predicted Doc has the reference's entities, and the pairs of them that were
        judged.
    pictures: "real": the predicted Doc has the reference's picture; "none": it has none.
    tokens: "gold": the predicted Doc has the reference's tokens, which soft labels need;
        "pipeline": those of the pipeline's tokenizer, as when it is used, unless it has the gold
        entities.

    The reader raises MMCoTError for a path that is not set, missing, no DocBin, or empty, and for
    unknown `pictures` or `tokens`.
    """

    def read(nlp: Language) -> Iterator[Example]:
        if path is None:
            raise MMCoTError(Errors.E204)
        docs = read_all_docs(Path(path), nlp.vocab)
        yield from make_examples(
            nlp,
            islice(docs, limit if limit > 0 else None),
            knowledge=knowledge,
            gold_entities=gold_entities,
            pictures=pictures,
            tokens=tokens,
        )

    return read


def make_examples(
    nlp: Language,
    references: Iterable[Doc],
    *,
    knowledge: bool = True,
    gold_entities: bool = False,
    pictures: Pictures = "none",
    tokens: Tokens = "gold",
) -> Iterator[Example]:
    """Examples of these reference Docs, as `Corpus` describes them. Raises MMCoTError for unknown
    `pictures` or `tokens`."""
    for name, value, allowed in (("pictures", pictures, PICTURES), ("tokens", tokens, TOKENS)):
        if value not in allowed:
            received, known = repr(value), ", ".join(allowed)
            raise MMCoTError(Errors.E409.format(name=name, received=received, allowed=known))
    register_extensions()
    copied: list[Any] = [ID_KEY, PROMPT_TARGET_KEY]
    if knowledge:
        copied.append(KNOWLEDGE_KEY)
    if pictures == "real":
        copied.append(IMAGE_KEY)
    for reference in references:
        predicted = copy_tokens(reference, copied)
        if gold_entities:
            copy_entities(reference, predicted)
        elif tokens == "pipeline":
            own = nlp.make_doc(reference.text)
            own.user_data.update(predicted.user_data)
            predicted = own
        yield Example(predicted, reference)
