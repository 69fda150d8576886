"""New training posts from labelled ones and an LLM's rewritings of them.

Labels follow their mentions into the new text, or the new post is rejected: none is guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from pydantic import ValidationError

from ..errors import explain
from ..types import Answers, Augmentation, Entity, NounItem, Post
from .locate import NotLocated, Place, Substitution, free_occurrences, locate, occurrences


class Augmented(NamedTuple):
    """A new post and what is still known of it; `answers` is None where nothing is."""

    post: Post
    answers: Answers | None


@dataclass
class Tally:
    """What became of the labelled training posts for one augmentation: how many gave a new post,
    have no answer, or were held for impossible by the LLM; ids of the rejected by reason."""

    made: int = 0
    unanswered: int = 0
    impossible: int = 0
    rejected: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, reason: str, post_id: str) -> None:
        self.rejected.setdefault(reason, []).append(post_id)


def augment(
    posts: Iterable[Post],
    answers: Mapping[str, Answers],
    dimensions: Sequence[Augmentation] = ("style", "entity"),
    variants: Sequence[Mapping[str, Answers]] = (),
) -> tuple[list[Augmented], dict[Augmentation, Tally]]:
    """New posts `ID#DIMENSION`, split train, from the labelled posts of the split train. Further
    rewritings of the same posts, the `variants`, make posts `ID#DIMENSION2` and so on.

    An `entity` variant that the LLM holds for impossible is dropped. Whatever cannot be located in
    the new text without doubt is rejected, with the reason in the tally.
    """
    makers = {"style": _style, "entity": _entity, "image": _image}
    tallies: dict[Augmentation, Tally] = {dimension: Tally() for dimension in dimensions}
    made: list[Augmented] = []
    for post in posts:
        if post.split != "train" or post.entities is None:
            continue
        for (number, found), dimension in product(enumerate([answers, *variants]), dimensions):
            known, tally = found.get(post.id), tallies[dimension]
            name = f"{dimension}{number + 1}" if number else dimension
            if known is None or getattr(known, dimension) is None:
                # A post without an answer has none in its first variant either.
                tally.unanswered += number == 0
            elif dimension == "entity" and known.entity and not known.entity.possible:
                tally.impossible += 1
            else:
                try:
                    made.append(makers[dimension](post, known, name))
                    tally.made += 1
                except NotLocated as reason:
                    tally.reject(str(reason), post.id)
                except ValidationError as error:
                    tally.reject(explain(error)[0], post.id)
    return made, tallies


def _style(post: Post, known: Answers, name: str) -> Augmented:
    text = known.style or ""
    if text == post.text:
        raise NotLocated("the new text is the old one")
    mentions = _mentions(post)
    _check_all_labelled(post, mentions)
    new = _moved(post, name, text, locate(mentions, text))
    nouns = _present(known.noun, text)
    return Augmented(new, _answers(new, noun=nouns, sentence=known.sentence))


def _entity(post: Post, known: Answers, name: str) -> Augmented:
    variant = known.entity
    assert variant is not None
    if variant.text == post.text:
        raise NotLocated("the new text is the old one")
    swapped = Substitution(post.text, variant.swaps)
    entities = post.entities or []
    if swapped.text == variant.text:
        places = [swapped.place(entity.start, entity.end) for entity in entities]
    else:
        # The LLM changed more than its swaps say: what the mentions have become must be found.
        _check_all_labelled(post, _mentions(post))
        mentions = [(swapped.surface(e.start, e.end), e.label) for e in entities]
        places = locate(mentions, variant.text)
    new = _moved(post, name, variant.text, places)
    new = new.model_copy(update={"caption": _swap(post.caption, variant.swaps)})
    nouns = _swapped_nouns(known.noun, variant.swaps, variant.text)
    sentence = _swap(known.sentence, variant.swaps)
    if sentence == known.sentence:
        # It names none of the things that changed, so it may speak of the old ones unnamed.
        sentence = None
    return Augmented(new, _answers(new, noun=nouns, sentence=sentence))


def _image(post: Post, known: Answers, name: str) -> Augmented:
    update = {"id": f"{post.id}#{name}", "caption": known.image, "image": None}
    new = post.model_copy(update=update)
    return Augmented(new, _answers(new, noun=known.noun, sentence=known.sentence))


def _mentions(post: Post) -> list[tuple[str, str]]:
    return [(post.text[e.start : e.end], e.label) for e in post.entities or []]


def _check_all_labelled(post: Post, mentions: list[tuple[str, str]]) -> None:
    """Where a labelled surface stands in the old text without a label too, an occurrence in the
    new text may be either."""
    counts = Counter(surface for surface, _ in mentions)
    for surface, places in free_occurrences(counts, post.text).items():
        if len(places) > counts[surface]:
            raise NotLocated("a mention's surface also stands unlabelled in the post")


def _moved(post: Post, name: str, text: str, places: list[Place]) -> Post:
    entities = [
        Entity(start=start, end=end, label=entity.label)
        for (start, end), entity in zip(places, post.entities or [], strict=True)
    ]
    fields = post.model_dump(exclude={"id", "text", "entities"})
    return Post(id=f"{post.id}#{name}", text=text, entities=entities, **fields)


def _answers(post: Post, *, noun: list[NounItem] | None, sentence: str | None) -> Answers | None:
    if noun is None and sentence is None:
        return None
    return Answers(id=post.id, noun=noun, sentence=sentence)


def _present(nouns: list[NounItem] | None, text: str) -> list[NounItem] | None:
    if nouns is None:
        return None
    return [noun for noun in nouns if occurrences(noun.mention, text)]


def _swap(text: str | None, swaps: Sequence[tuple[str, str]]) -> str | None:
    """The text with the swaps applied; None where it stays open which swap applies."""
    if text is None:
        return None
    try:
        return Substitution(text, swaps).text
    except NotLocated:
        return None


def _swapped_nouns(
    nouns: list[NounItem] | None, swaps: Sequence[tuple[str, str]], text: str
) -> list[NounItem] | None:
    """Kinds outlive a swap; explanations speak of the old thing. A list has the mentions in text
    order, so several swaps of one surface apply to its items in turn."""
    if nouns is None:
        return None
    news: dict[str, list[str]] = {}
    for old, new in swaps:
        news.setdefault(old, []).append(new)
    result = []
    for noun in nouns:
        turn = news.get(noun.mention, [])
        if len(turn) > 1:
            mention: str | None = turn.pop(0)
        else:
            mention = _swap(noun.mention, swaps)
        if mention:
            result.append(NounItem(mention=mention, kind=noun.kind))
    return _present(result, text)
