"""Changed copies of labelled Docs, to see what a pipeline still finds: other case, typos, no
hashtags, emoji between the words, other names. Every entity keeps its label and stays the mention
that it was.

`perturb`: changed copies of labelled Docs, to see what a pipeline still finds in them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, get_args

import typer
from spacy.tokens import Doc, Span

from research.errors import StudyErrors
from spacy_mmcot.corpus.extensions import (
    get_pairs,
    get_relations,
    list_relations,
    set_image,
    set_pairs,
    set_relations,
)
from spacy_mmcot.errors import MMCoTError, UsageError
from spacy_mmcot.pictures.read import get_image
from spacy_mmcot.types import ID_KEY, Relation

if TYPE_CHECKING:
    from spacy.vocab import Vocab

Change = Literal["case", "typos", "strip", "emoji", "swap"]
CHANGES: tuple[Change, ...] = get_args(Change)
Name = tuple[str, ...]
Names = Mapping[str, Sequence[Name]]

_SIGNS = "#@"
# Common ones of one and of several code points each.
_EMOJI = ("😂", "🔥", "❤️", "🙌", "👀", "💯", "😭", "🎉", "👍🏽", "🤷‍♀️")
_SHORTEST_MISTYPED = 4


class _Word(NamedTuple):
    """A token of the new Doc, and the old tokens that it stands for."""

    text: str
    space: bool
    origins: range


def perturb(
    doc: Doc, change: Change, seed: int, *, rate: float = 0.1, names: Names | None = None
) -> Doc:
    """A changed copy with its entities, relations, pairs, picture and id. Its knowledge is left
    out, since it was elicited about the text as it was.

    case: all letters small. typos: of the words of four letters and more, mentions too, `rate`
    have two letters swapped, or one left out or doubled. strip: hashtags and handles are gone, of
    those that belong to a mention the sign alone; where nothing else would be left, the words
    stay. emoji: `rate` of the places between words get one, one at least, never inside a mention.
    swap: another name of the same label (from `names`, see `unseen_names`) takes each mention's
    place, the same for all mentions of one name.

    Equal Docs, seeds and names give equal copies. Raises KeyError where `names` has none for a
    label that is needed.
    """
    rng = random.Random(f"{seed} {change} {doc.user_data.get(ID_KEY)} {doc.text}")
    if change == "typos":
        words = [
            word._replace(text=_mistyped(word.text, rng) if rng.random() < rate else word.text)
            for word in _words(doc)
        ]
    elif change == "swap":
        words = _swapped(doc, names or {}, rng)
    elif change == "emoji":
        words = _with_emoji(doc, rate, rng)
    elif change == "strip":
        words = _stripped(doc)
    else:
        words = [word._replace(text=word.text.lower()) for word in _words(doc)]
    return _copy(doc, words)


def unseen_names(sources: Iterable[Doc], seen: Iterable[Doc]) -> dict[str, list[Name]]:
    """The names of labelled Docs, as their tokens, by label and in alphabetical order, without
    those that stand anywhere in the `seen` Docs and those that have several labels. Case and the
    signs # and @ before a word make no difference."""
    labels: dict[Name, set[str]] = {}
    forms: dict[Name, set[Name]] = {}
    for doc in sources:
        for ent in doc.ents:
            name = _bare(token.text for token in ent)
            plain = tuple(word.casefold() for word in name)
            if plain:
                labels.setdefault(plain, set()).add(ent.label_)
                forms.setdefault(plain, set()).add(name)
    candidates = {plain for plain, found in labels.items() if len(found) == 1}
    lengths = sorted({len(plain) for plain in candidates})
    for doc in seen:
        text = tuple(word.casefold() for word in _bare(token.text for token in doc))
        for n in lengths:
            candidates.difference_update(text[i : i + n] for i in range(len(text) - n + 1))
    names: dict[str, list[Name]] = {}
    for plain in sorted(candidates):
        names.setdefault(next(iter(labels[plain])), []).append(min(forms[plain]))
    return names


def _bare(words: Iterable[str]) -> Name:
    bare = (word.lstrip(_SIGNS) for word in words)
    return tuple(word for word in bare if word and not word.isspace())


def _words(doc: Doc) -> list[_Word]:
    return [
        _Word(token.text, bool(token.whitespace_), range(token.i, token.i + 1)) for token in doc
    ]


def _mistyped(word: str, rng: random.Random) -> str:
    if len(word) < _SHORTEST_MISTYPED or not word.isalpha():
        return word
    # The first letter stays: it is the one that people get right.
    at = rng.randrange(1, len(word) - 1)
    edits: tuple[Callable[[], str], ...] = (
        lambda: word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        lambda: word[:at] + word[at + 1 :],
        lambda: word[: at + 1] + word[at:],
    )
    return rng.choice(edits)()


def _with_emoji(doc: Doc, rate: float, rng: random.Random) -> list[_Word]:
    inside = {token.i for span in _spans(doc) for token in span[:-1]}
    last = len(doc) - 1
    # A sign that was cut off its word is no place either.
    inside.update(token.i for token in doc if token.text in _SIGNS)
    places = [t.i for t in doc if t.i not in inside and (t.whitespace_ or t.i == last)]
    chosen = {place for place in places if rng.random() < rate}
    if places and not chosen:
        chosen = {rng.choice(places)}
    words: list[_Word] = []
    for i, word in enumerate(_words(doc)):
        if i in chosen:
            emoji = _Word(rng.choice(_EMOJI), word.space, range(0))
            words += [word._replace(space=True), emoji]
        else:
            words.append(word)
    return words


def _stripped(doc: Doc) -> list[_Word]:
    kept: set[int] = set()
    mentioned: set[int] = set()
    for span in _spans(doc):
        # A mention that is nothing but signs has nothing that could go.
        only_signs = not _bare(token.text for token in span)
        (kept if only_signs else mentioned).update(token.i for token in span)
    words: list[_Word] = []
    for word in _words(doc):
        i = word.origins.start
        text = word.text
        if i in mentioned:
            text = text.lstrip(_SIGNS)
        elif i not in kept and _is_tagged(doc, i):
            text = ""
        _append(words, word._replace(text=text))
    if not _is_empty(words):
        return words
    words = []
    for word in _words(doc):
        _append(words, word._replace(text=word.text.lstrip(_SIGNS)))
    return _words(doc) if _is_empty(words) else words


def _is_empty(words: list[_Word]) -> bool:
    return all(word.text.isspace() for word in words)


def _is_tagged(doc: Doc, i: int) -> bool:
    """Whether the token is a hashtag or handle, or a part of one that was cut into its sign and
    its word."""
    text = doc[i].text
    if text[0] in _SIGNS:
        return len(text) > 1 or (i + 1 < len(doc) and doc[i + 1].text[0].isalnum())
    return i > 0 and doc[i - 1].text in _SIGNS and text[0].isalnum()


def _append(words: list[_Word], word: _Word) -> None:
    """Add a word; one without a text leaves its space to the word before it."""
    if word.text:
        words.append(word)
    elif words and word.space:
        words[-1] = words[-1]._replace(space=True)


def _swapped(doc: Doc, names: Names, rng: random.Random) -> list[_Word]:
    chosen: dict[tuple[str, str], Name] = {}
    words = _words(doc)
    # From the last one on, so that the places of the others stay.
    for ent in reversed(doc.ents):
        key = ent.text.casefold(), ent.label_
        if key not in chosen:
            pool = names[ent.label_]
            # Two names of a post stay two, as long as there are enough.
            free = [name for name in pool if name not in chosen.values()]
            chosen[key] = rng.choice(free or pool)
        origins = range(ent.start, ent.end)
        new = [_Word(text, True, origins) for text in chosen[key]]
        new[-1] = new[-1]._replace(space=words[ent.end - 1].space)
        words[ent.start : ent.end] = new
    return words


def _spans(doc: Doc) -> list[Span]:
    """All that has to be found again: entities, and the mentions of relations and pairs."""
    spans = list(doc.ents)
    spans += [span for relation in get_relations(doc) for span in relation[:2]]
    spans += [span for pair in get_pairs(doc) or () for span in pair]
    return spans


def _copy(doc: Doc, words: list[_Word]) -> Doc:
    copy = Doc(doc.vocab, words=[w.text for w in words], spaces=[w.space for w in words])
    places: dict[int, list[int]] = {}
    for i, word in enumerate(words):
        for origin in word.origins:
            places.setdefault(origin, []).append(i)

    def moved(span: Span) -> Span:
        found = [i for token in span for i in places.get(token.i, ())]
        return Span(copy, min(found), max(found) + 1, label=span.label)

    labelled = doc.has_annotation("ENT_IOB")
    copy.set_ents([moved(ent) for ent in doc.ents], default="outside" if labelled else "missing")
    if ID_KEY in doc.user_data:
        copy.user_data[ID_KEY] = doc.user_data[ID_KEY]
    set_image(copy, get_image(doc))
    pairs = get_pairs(doc)
    if pairs is not None:
        set_pairs(copy, [(moved(head), moved(tail)) for head, tail in pairs])
    if list_relations(doc) is not None:
        set_relations(
            copy,
            [
                Relation(moved(h), moved(t), label, score)
                for h, t, label, score in get_relations(doc)
            ],
        )
    return copy


# typer takes enums for options that repeat, not Literals.
ChangeChoice = Enum(  # type: ignore[misc]
    "ChangeChoice", {name: name for name in CHANGES}, type=str
)


def perturb_files(
    data: Annotated[Path, typer.Argument(help=".spacy file or folder, labelled with entities")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for a .spacy file of each change")
    ],
    change: Annotated[
        list[ChangeChoice] | None,
        typer.Option(help="Which changes, all by default; repeatable", show_default=False),
    ] = None,
    names: Annotated[
        list[Path] | None,
        typer.Option(
            help="Labelled .spacy files or folders whose names swap puts in; repeatable",
            show_default=False,
        ),
    ] = None,
    unseen_in: Annotated[
        list[Path] | None,
        typer.Option(
            help="Training data (.spacy): names that stand anywhere in it are not used; repeatable",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(help="How many words get a typo, and places between words an emoji")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of all that is drawn")] = 1,
) -> None:
    """Write perturb copies of DATA, entities kept true: small letters (case), typos, without
    hashtags and handles (strip), with emoji, with other names of the same label (swap). Knowledge
    about the posts as they were is left out."""
    from spacy.vocab import Vocab

    from spacy_mmcot.corpus.docbin import SUFFIX, read_all_docs, write_docs

    if not 0 <= rate <= 1:
        raise UsageError(StudyErrors.E718.format(received=rate))
    wanted = {choice.value for choice in change} if change else set(CHANGES)
    if "swap" in wanted and not names:
        raise UsageError(StudyErrors.E717)
    vocab = Vocab()
    docs = list(read_all_docs(data, vocab))
    if not any(doc.has_annotation("ENT_IOB") for doc in docs):
        raise MMCoTError(StudyErrors.E217.format(path=data))
    pool = _names(docs, names or [], unseen_in or [], vocab) if "swap" in wanted else {}
    for name in CHANGES:
        if name in wanted:
            copies = [perturb(doc, name, seed, rate=rate, names=pool) for doc in docs]
            path = output / f"{name}{SUFFIX}"
            write_docs(path, copies)
            differ = sum(old.text != new.text for old, new in zip(docs, copies, strict=True))
            n_mentions = sum(len(doc.ents) for doc in copies)
            print(f"{name}: {differ} of {len(docs)} docs differ, {n_mentions} mentions -> {path}")
    if pool:
        counts = ", ".join(f"{label} {len(found)}" for label, found in sorted(pool.items()))
        print(f"Unseen names: {counts}.")


def _names(docs: list[Doc], names: list[Path], unseen_in: list[Path], vocab: Vocab) -> Names:
    """Raises MMCoTError where a label of the docs has no unseen name."""
    from spacy_mmcot.corpus.docbin import read_all_docs

    sources = [doc for path in names for doc in read_all_docs(path, vocab)]
    pool = unseen_names(sources, (doc for path in unseen_in for doc in read_all_docs(path, vocab)))
    missing = sorted({ent.label_ for doc in docs for ent in doc.ents} - pool.keys())
    if missing:
        count = sum(len(doc.ents) for doc in sources)
        raise MMCoTError(StudyErrors.E218.format(labels=", ".join(missing), count=count))
    return pool
