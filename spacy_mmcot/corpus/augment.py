"""New training posts from labelled ones and an LLM's augmentations of them.

Labels move to where their mentions occur in the new text as whole words ("Ann" does not occur in
"Anna"). Where that is ambiguous, no new post is made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from pydantic import ValidationError

from ..messages import explain
from ..types import Answers, Augmentation, NounItem, Post

Place = tuple[int, int]  # character offsets, end exclusive


class NotLocated(Exception):
    """Why a mention cannot be located. Callers in this package handle it."""


def find_surface(surface: str, text: str) -> list[Place]:
    """All places of a surface in a text, in text order."""
    before = r"(?<!\w)" if re.match(r"\w", surface) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", surface) else ""
    return [match.span() for match in re.finditer(before + re.escape(surface) + after, text)]


def find_surfaces(surfaces: Iterable[str], text: str) -> dict[str, list[Place]]:
    """The places of each surface, in text order, without those inside a longer surface."""
    taken: list[Place] = []
    found: dict[str, list[Place]] = {}
    for surface in sorted(set(surfaces), key=lambda s: (-len(s), s)):
        found[surface] = [
            (start, end)
            for start, end in find_surface(surface, text)
            if all(end <= left or right <= start for left, right in taken)
        ]
        taken.extend(found[surface])
    return found


def locate_mentions(mentions: Sequence[tuple[str, str]], text: str) -> list[Place]:
    """The places of (surface, label) mentions in a text, in the order of the mentions. Mentions of
    one surface get its places in their order. Raises NotLocated where a surface occurs more or less
    often in the text than among the mentions, or has several labels, which would be ambiguous."""
    counts = Counter(surface for surface, _ in mentions)
    found = find_surfaces(counts, text)
    for surface, count in counts.items():
        if not found[surface]:
            raise NotLocated("a mention is not in the new text")
        if len(found[surface]) < count:
            raise NotLocated("a mention occurs less often in the new text")
        if len(found[surface]) > count:
            raise NotLocated("a mention occurs more often in the new text than it is labelled")
    if len(counts) < len(set(mentions)):
        raise NotLocated("one surface has mentions of several labels")
    queues = {surface: iter(places) for surface, places in found.items()}
    return [next(queues[surface]) for surface, _ in mentions]


class Augmented(NamedTuple):
    """A new post and what is still known of it; `answers` is None where nothing is."""

    post: Post
    answers: Answers | None


@dataclass
class Tally:
    """What became of the labelled training posts for one augmentation: how many gave a new post,
    have no answer, or were called impossible by the LLM; ids of the rejected by reason."""

    made: int = 0
    unanswered: int = 0
    impossible: int = 0
    rejected: dict[str, list[str]] = field(default_factory=dict)


class Substitution:
    """A text with each old surface of the (old, new) swaps replaced wherever it stands. Raises
    NotLocated where a surface has several swaps."""

    def __init__(self, text: str, swaps: Sequence[tuple[str, str]]) -> None:
        news = dict(swaps)
        if len(news) < len(set(swaps)):
            raise NotLocated("a surface has several swaps")
        # (start, end, new) in the old text, in text order.
        self._pieces = sorted(
            (*place, news[old])
            for old, places in find_surfaces(news, text).items()
            for place in places
        )
        self.text = text
        for start, end, new in reversed(self._pieces):
            self.text = self.text[:start] + new + self.text[end:]

    def get_place(self, start: int, end: int) -> Place:
        """Where the characters `start` to `end` of the old text stand in the new one. Raises
        NotLocated where a swap crosses one of them."""
        moved = start, end
        for left, right, new in self._pieces:
            if left < start < right or left < end < right:
                raise NotLocated("a swap covers a part of a mention")
            shift = len(new) - (right - left)
            moved = moved[0] + shift * (right <= start), moved[1] + shift * (right <= end)
        return moved


def list_sources(posts: Iterable[Post]) -> list[Post]:
    """The posts that new ones can be made from: of the split train, with all labels."""
    return [post for post in posts if post.split == "train" and post.is_fully_labelled]


def augment(
    posts: Iterable[Post],
    answers: Mapping[str, Answers],
    dimensions: Sequence[Augmentation] = ("style", "entity"),
    variants: Sequence[Mapping[str, Answers]] = (),
) -> tuple[list[Augmented], dict[Augmentation, Tally]]:
    """New posts `ID#DIMENSION`, of the split train, from the posts of `list_sources`. The
    `variants`, further augmentations of the same posts, make posts `ID#DIMENSION2` and so on.

    An `entity` variant that the LLM calls impossible is dropped. A post whose mentions cannot be
    located with certainty in the new text is rejected, with the reason in the tally.
    """
    tallies: dict[Augmentation, Tally] = {dimension: Tally() for dimension in dimensions}
    made: list[Augmented] = []
    sources = list(enumerate([answers, *variants], start=1))
    for post, (number, source), dimension in product(posts, sources, dimensions):
        known, tally = source.get(post.id), tallies[dimension]
        if known is None or getattr(known, dimension) is None:
            # Counted once: a post without an answer has none in its first variant.
            tally.unanswered += number == 1
        elif dimension == "entity" and known.entity and not known.entity.possible:
            tally.impossible += 1
        else:
            name = dimension if number == 1 else f"{dimension}{number}"
            try:
                made.append(_MAKERS[dimension](post, known, f"{post.id}#{name}"))
                tally.made += 1
            except (NotLocated, ValidationError) as error:
                reason = str(error) if isinstance(error, NotLocated) else explain(error)[0]
                tally.rejected.setdefault(reason, []).append(post.id)
    return made, tallies


def _add_known(post: Post, noun: list[NounItem] | None, sentence: str | None) -> Augmented:
    is_known = noun is not None or sentence is not None
    return Augmented(post, Answers(id=post.id, noun=noun, sentence=sentence) if is_known else None)


def _make_style(post: Post, known: Answers, name: str) -> Augmented:
    text = known.style or ""
    mentions = [(post.text[e.start : e.end], e.label) for e in post.entities or []]
    _check_all_labelled(post)
    new = _move_post(post, name, text, locate_mentions(mentions, text))
    nouns = known.noun and [noun for noun in known.noun if find_surface(noun.mention, text)]
    return _add_known(new, nouns, known.sentence)


def _make_entity(post: Post, known: Answers, name: str) -> Augmented:
    variant = known.entity
    assert variant is not None
    swapped = Substitution(post.text, variant.swaps)
    entities = post.entities or []
    places = [swapped.get_place(e.start, e.end) for e in entities]
    if swapped.text != variant.text:
        # The LLM changed more than its swaps say, so the mentions must be searched for.
        _check_all_labelled(post)
        pairs = zip(places, entities, strict=True)
        mentions = [(swapped.text[start:end], e.label) for (start, end), e in pairs]
        places = locate_mentions(mentions, variant.text)
    new = _move_post(post, name, variant.text, places)
    caption, sentence = (
        text and Substitution(text, variant.swaps).text for text in (post.caption, known.sentence)
    )
    # Explanations are about the old things. So may be a sentence that names nothing that changed.
    nouns = [(Substitution(n.mention, variant.swaps).text, n.kind) for n in known.noun or ()]
    items = [NounItem(mention=m, kind=k) for m, k in nouns if find_surface(m, variant.text)]
    return _add_known(
        new.model_copy(update={"caption": caption}),
        None if known.noun is None else items,
        None if sentence == known.sentence else sentence,
    )


def _make_image(post: Post, known: Answers, name: str) -> Augmented:
    new = post.model_copy(update={"id": name, "caption": known.image, "image": None})
    return _add_known(new, known.noun, known.sentence)


_MAKERS = {"style": _make_style, "entity": _make_entity, "image": _make_image}


def _check_all_labelled(post: Post) -> None:
    """Raises NotLocated where a labelled surface also stands unlabelled in the post: its place in
    the new text may be that of either."""
    counts = Counter(post.text[e.start : e.end] for e in post.entities or [])
    for surface, places in find_surfaces(counts, post.text).items():
        if len(places) > counts[surface]:
            raise NotLocated("a mention's surface also stands unlabelled in the post")


def _move_post(post: Post, name: str, text: str, places: Sequence[Place]) -> Post:
    """The post under a new id, with its entities at their places in the new text."""
    if text == post.text:
        raise NotLocated("the new text is the old one")
    entities = [
        {"start": start, "end": end, "label": entity.label}
        for (start, end), entity in zip(places, post.entities or [], strict=True)
    ]
    changed = {"id": name, "text": text, "entities": entities}
    return Post.model_validate({**post.model_dump(exclude={"rejected"}), **changed})
