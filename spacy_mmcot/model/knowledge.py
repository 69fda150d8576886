"""An LLM's knowledge as a teacher reads it: tags on the tokens, and a second text segment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError
from ..types import KNOWLEDGE_KEY

# What kinds of thing an LLM names, sorted by the word that heads the kind ("film festival" is an
# event, "festival film" a work). A kind that no word decides is "other": still worth a tag, since
# it marks a mention.
KIND_WORDS: dict[str, str] = {
    "person": """person people man woman boy girl child kid player footballer golfer singer artist
        musician rapper actor actress author writer poet journalist reporter politician president
        senator congressman governor mayor minister king queen prince princess coach manager
        character celebrity model host comedian director producer athlete swimmer runner boxer
        wrestler fighter driver cyclist composer painter scientist physicist astronomer chef baker
        individual figure user handle friend family member student teacher father mother name
        username quarterback pitcher striker goalkeeper dj drummer guitarist designer
        photographer youtuber influencer activist entrepreneur ceo founder pope saint god deity
        candidate nominee fan couple duo sibling brother sister son daughter nickname anchor""",
    "place": """place location city town village country state province region county district
        borough suburb neighborhood neighbourhood area street road avenue island mountain river
        lake sea ocean beach valley continent planet capital square coast bay harbour harbor forest
        nation territory address destination landmark range hill waterfall canyon desert""",
    "facility": """stadium arena park building venue museum station airport bridge church cathedral
        temple hotel restaurant pub bar cafe theater theatre hall hospital mall shop store library
        zoo garden castle palace tower gallery court ballpark field speedway racetrack cinema
        studio bakery gym monument prison ground facility center centre""",
    "organization": """organization organisation company corporation firm agency business brand
        government party institution university college school department ministry league
        association federation union committee council foundation charity bank network channel
        broadcaster newspaper magazine outlet media website platform startup airline army navy
        police label publisher community conference division nonprofit
        airlines retailer manufacturer sponsor account bureau office academy""",
    "team": "team club franchise squad side roster",
    "group": "band group orchestra choir ensemble trio quartet crew gang tribe nationality",
    "event": """event festival tournament championship cup race game match concert tour
        ceremony election war battle holiday day convention expo
        derby final finals playoffs playoff draft season marathon parade fair summit
        attack protest rally campaign olympics series gala meet workshop meeting wedding
        competition contest celebration anniversary birthday graduation premiere exhibition
        movement hashtag trend""",
    "work": """work film movie song album book novel show series tv television episode
        videogame podcast single track painting sculpture play musical opera poem comic cartoon
        anime manga documentary article video mixtape soundtrack
        magazine story trailer photo picture title artwork photograph radio program programme""",
    "product": """product car vehicle phone smartphone software app application device console
        beer wine drink food dish clothing shoe aircraft ship spacecraft train service tool weapon
        animal dog cat bird breed species plant technology currency medicine disease
        item toy card language""",
    "award": "award prize medal trophy honor honour record achievement nomination",
    "time": """time date year month week weekday number age quantity money amount score duration
        period decade century percentage""",
}
KINDS: tuple[str, ...] = (*KIND_WORDS, "other")
_KIND_OF_WORD = {
    word: index
    for index, words in reversed(list(enumerate(KIND_WORDS.values())))
    for word in words.split()
}
_ALTERNATIVES = re.compile(r"[/,;|()]| or | and ")
_TAIL = re.compile(r" (?:of|in|from|for|at|by|on|about|with)\b.*")
_WORD = re.compile(r"[a-z]+")

# 0 is "no tag"; each kind has one tag for the first token of a mention and one for the others.
N_TAGS = 1 + 2 * len(KINDS)

# What the segment can hold, in this order.
SEGMENT_GRAINS: tuple[str, ...] = ("caption", "sentence", "multimodality")


def kind_index(kind: str) -> int:
    """The index into KINDS of a kind in an LLM's words ("person/footballer", "US state")."""
    for alternative in _ALTERNATIVES.split(kind.lower()):
        for word in reversed(_WORD.findall(_TAIL.sub("", alternative))):
            singular = word.removesuffix("ies") + "y" if word.endswith("ies") else word
            for form in (word, word.removesuffix("s"), word.removesuffix("es"), singular):
                if form in _KIND_OF_WORD:
                    return _KIND_OF_WORD[form]
    return len(KINDS) - 1


def knowledge_tags(doc: Doc) -> NDArray[numpy.int64]:
    """The tag of each token, shape (tokens,): the kinds of the `noun` answer where its mentions
    stand in the text.

    Mentions are matched without regard to case, white space and leading # or @, at token
    boundaries only; a longer mention wins over a shorter one inside it.
    """
    tags = numpy.zeros(len(doc), dtype="int64")
    items = _knowledge(doc).get("noun") or ()
    if not len(doc) or not items:
        return tags
    text, first_token, last_token = _squeezed(doc)
    mentions = sorted(
        ((_squeeze(item["mention"]), item["kind"]) for item in items), key=lambda m: -len(m[0])
    )
    for mention, kind in mentions:
        if not mention:
            continue
        at = text.find(mention)
        while at >= 0:
            start = first_token.get(at)
            end = last_token.get(at + len(mention))
            if start is not None and end is not None and not tags[start : end + 1].any():
                tag = 1 + 2 * kind_index(kind)
                tags[start : end + 1] = tag + 1
                tags[start] = tag
            at = text.find(mention, at + 1)
    return tags


def segment_parts(doc: Doc, grains: Sequence[str] = SEGMENT_GRAINS) -> list[str]:
    """The knowledge that a list of mentions cannot hold: the picture's caption, what the post
    means, and how picture and post bear on each other; of these, `grains`, as far as known."""
    knowledge = _knowledge(doc)
    parts = (knowledge.get(name) or "" for name in SEGMENT_GRAINS if name in grains)
    return [part.strip() for part in parts if part.strip()]


def segment_text(doc: Doc) -> str:
    """All of these parts as one text."""
    return " ".join(segment_parts(doc))


def full_text(doc: Doc) -> str:
    """All knowledge of a Doc as one text, its mentions and explanations first."""
    nouns = (
        f"{item['mention']}: {item['kind']}. {item.get('explanation') or ''}".strip()
        for item in _knowledge(doc).get("noun") or ()
    )
    return " ".join([*nouns, segment_text(doc)]).strip()


def _knowledge(doc: Doc) -> Mapping[str, Any]:
    """Raises MMCoTError where a user wrote something else there."""
    user_data: dict[Any, Any] = doc.user_data
    knowledge = user_data.get(KNOWLEDGE_KEY) or {}
    problem = _problem(knowledge)
    if problem:
        raise MMCoTError(Errors.E410.format(doc=repr(doc.text[:60]), problem=problem))
    return knowledge


def _problem(knowledge: Any) -> str | None:
    if not isinstance(knowledge, Mapping):
        return f"is a {type(knowledge).__name__}"
    for name in SEGMENT_GRAINS:
        if not isinstance(knowledge.get(name), str | None):
            return f"has a {type(knowledge[name]).__name__} as {name!r}"
    items = knowledge.get("noun") or ()
    if not isinstance(items, Sequence) or isinstance(items, str):
        return f"has a {type(items).__name__} as 'noun'"
    for item in items:
        if not isinstance(item, Mapping):
            return f"has a {type(item).__name__} among its 'noun'"
        for name in ("mention", "kind"):
            if not isinstance(item.get(name), str):
                return f"has a 'noun' without a text as {name!r}: {dict(item)}"
    return None


def _squeeze(text: str) -> str:
    return "".join(text.lower().split()).lstrip("#@")


def _squeezed(doc: Doc) -> tuple[str, dict[int, int], dict[int, int]]:
    """The Doc's lower-cased text without white space; which token starts at an offset of it, and
    which ends there."""
    text = ""
    first_token: dict[int, int] = {}
    last_token: dict[int, int] = {}
    for i, token in enumerate(doc):
        word = "".join(token.text.lower().split())
        if not word:
            continue
        first_token[len(text)] = i
        # A token such as "#NBA" may be named without its sign.
        stripped = word.lstrip("#@")
        if stripped and stripped != word:
            first_token[len(text) + len(word) - len(stripped)] = i
        text += word
        last_token[len(text)] = i
    return text, first_token, last_token
