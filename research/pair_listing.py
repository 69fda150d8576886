"""Free-text answers about the two mentions of a row: X is a KIND, ...; Y is a KIND, ..."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import unescape
from typing import NamedTuple

from spacy_mmcot.types import NounItem

_COPULA = (
    r"(?:is|are|was|were|means?|refers? to|stands? for|names|denotes|looks like|"
    r"(?:seems?|appears?)(?: to be)?)\b"
)
_HEDGES = (
    r"(?:(?:here|also|both|only|just|simply|merely|most|very|apparently|likely|probably|possibly|"
    r"perhaps|maybe|presumably|seemingly|clearly|usually|now|likewise|again|itself|really|evidently"
    r"|an?|the|his|her|its|their|one of the|name of (?:an?|the)|short for|said to be)\s+)*"
)
_COMPLEMENT = re.compile(
    rf"(?:\b{_COPULA}\s+|^['’\"”)]*\s+(?=an?\s))(?P<hedges>{_HEDGES})(?P<rest>.+)", re.DOTALL
)
_DIRECTLY = re.compile(rf"['’\"”)]*(?:\s*\([^)]*\))?,?\s+(?:\w+ly\s+)?{_COPULA}")
_JOINED = re.compile(rf"['’\"”)]*(?:,| and| or)\s[^;]{{1,60}}?\s{_COPULA}")
# What stands before the first word of a clause.
_CLAUSE = re.compile(
    r"(?:^|[;.:,!?]|\b(?:and|or|but|while|whereas|where|with|of|both))\s*(?:the\s+)?['‘\"“(@#]*$",
    re.IGNORECASE,
)
# A full stop ends a clause where a new sentence follows it, not in "St. Louis" or "J. Lo".
_END = re.compile(r";|(?<![ .]\w)(?<!\b[A-Z][a-z])\.(?=\s+[A-Z@#\d'‘\"“]|\s*$)")
_ARTICLE = re.compile(
    r"^(?:an?|the|his|her|its|their|our|one of the|also|formerly|once|both|or)\s+", re.I
)
_LOOSE_ENDS = re.compile(r"[\s,;.]*(?:\b(?:and|while|whereas|but|or|with)\s*)?[\s,;.]*(?:the\s+)?$")
_RELATIVE = re.compile(
    r"\s(?:(?:(?:in|on|of|for|to|by|at|from|with)\s)?(?:which|whom|whose)|who|that|where|when|"
    r"and\s+[A-Z@#])\b.*",
    re.DOTALL,
)
_OUTER = " \t#@.-'\"“”‘’()"
_ASIDE = re.compile(r"(?:who|whom|whose|which|that|where|when|not|here)\b")
_SHORTEST_PART = 3
_PARTICLES = {"of", "the", "de", "la", "le", "da", "di", "von", "van", "der", "and", "in", "for"}


class _Place(NamedTuple):
    start: int
    end: int
    heads: bool


def parse_pair_listing(text: str, mentions: Sequence[str]) -> list[NounItem]:
    """What an answer says about each of `mentions`, in their order; those that it does not name
    are left out.

    A mention is found without regard to case, white space and a leading # or @, and its clause is
    the one that it heads. `kind` is what the clause calls it: the words after "is a", up to a
    comma, or, where those are another name ("is Warner Bros., an American film studio"), the words
    after the comma. `explanation` is the clause.
    """
    places: dict[str, _Place] = {}
    # A longer mention takes its place first: a shorter one may be a part of it.
    for mention in sorted(set(mentions), key=lambda m: (-len(m), m)):
        place = _place(text, mention, [(p.start, p.end) for p in places.values()])
        if place is not None:
            places[mention] = place
    for mention in mentions:
        if mention not in places:
            place = _place_of_part(text, mention, [(p.start, p.end) for p in places.values()])
            if place is not None:
                places[mention] = place
    heads = sorted(place.start for place in places.values() if place.heads)
    items = []
    for mention in dict.fromkeys(mentions):
        if mention in places:
            clause = _clause(text, places[mention], heads)
            kind = _kind(clause[len(text[slice(*places[mention][:2])]) :])
            items.append(NounItem(mention=mention, kind=kind or "other", explanation=clause))
    return items


def _place(text: str, mention: str, taken: list[tuple[int, int]]) -> _Place | None:
    """The mention's best occurrence: one that heads a clause and is told what it is comes first,
    then those in a clause of their own, then the earliest."""
    # Tweets come with the entities of HTML ("H&amp;M"), answers without.
    squeezed = unescape("".join(mention.split()))
    letters = squeezed.strip(_OUTER).replace("_", "") or squeezed
    pattern = r"[\s_]*".join(map(re.escape, letters))
    ranked = []
    for match in re.finditer(rf"(?<!\w){pattern}(?![^\W_])", text, re.IGNORECASE):
        start, end = match.span()
        inside = any(left < end and start < right for left, right in taken)
        begins = bool(_CLAUSE.search(text[:start]))
        told = bool(_DIRECTLY.match(text, end))
        joined = bool(_JOINED.match(text, end))
        heads = begins and (told or joined)
        ranked.append(((inside, not heads, not told, not begins, start), _Place(start, end, heads)))
    return min(ranked)[1] if ranked else None


def _place_of_part(text: str, mention: str, taken: list[tuple[int, int]]) -> _Place | None:
    """Where the longest part of the mention heads a clause: annotators draw in what stands beside
    a name ("RT @Anna", "Anna &")."""
    words = mention.split()
    spans = [(i, j) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
    parts = sorted({" ".join(words[i:j]) for i, j in spans}, key=lambda part: (-len(part), part))
    for part in parts:
        if len(part) >= _SHORTEST_PART:
            place = _place(text, part, taken)
            if place and place.heads and all(e <= place.start or place.end <= s for s, e in taken):
                return place
    return None


def _clause(text: str, place: _Place, heads: list[int]) -> str:
    """From the mention to where its clause ends or the next mention's begins. A clause that says
    nothing by then ("X and Y are cities") goes on."""
    stop = _END.search(text, place.end)
    end = stop.start() if stop else len(text)
    for head in [*(h for h in heads if place.end <= h < end), end]:
        clause = _LOOSE_ENDS.sub("", text[place.start : head])
        if _COMPLEMENT.search(text[place.end : head]):
            return clause
    return clause


def _kind(predicate: str) -> str:
    found = _COMPLEMENT.search(predicate)
    if found is None:
        return ""
    hedges, rest = found["hedges"], found["rest"]
    parts = [part.strip() for part in re.split(r"[,;:(]", rest) if part.strip()]
    if not parts:
        return ""
    if _is_name(parts[0], hedges):
        others = [part for part in parts[1:] if not _ASIDE.match(part)]
        parts = [part for part in others if not _is_name(part, "")] or others or parts
    kind = _RELATIVE.sub("", _ARTICLE.sub("", parts[0]))
    return kind.strip(_OUTER)


def _is_name(part: str, hedges: str) -> bool:
    """ "Warner Bros.", "the United States", "part of Dong Yoon Jung": a name instead of a kind."""
    if re.search(r"\ban?\s+$", hedges, re.IGNORECASE) or re.match(r"an?\s", part):
        return False
    words = part.split()
    if words[:2] in (["part", "of"], ["fragment", "of"], ["short", "for"], ["name", "of"]):
        return True
    lower = [word for word in words if word[0].islower() and word not in _PARTICLES]
    return not lower
