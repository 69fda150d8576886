"""What an LLM said about a Doc, as a teacher's input: tags on the tokens and a second text segment
for its encoder, a Doc of its own for the pair classifier."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError
from ..types import KNOWLEDGE_KEY

# The words that head an LLM's description of a kind ("film festival" is an event, "festival film" a
# work). A description without any of them is of the kind "other", whose tag still marks a mention.
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

# The parts that a segment can have, in this order.
SEGMENT_GRAINS: tuple[str, ...] = ("caption", "sentence", "multimodality")


@dataclass(frozen=True)
class SegmentSettings:
    """The knowledge segment. length: most word pieces, 0 for no segment; grains: which of
    SEGMENT_GRAINS it has.

    Raises MMCoTError for an unknown grain.
    """

    length: int = 0
    grains: Sequence[str] = SEGMENT_GRAINS

    def __post_init__(self) -> None:
        for grain in self.grains:
            if grain not in SEGMENT_GRAINS:
                raise MMCoTError(
                    Errors.E409.format(
                        name="In segment_grains of spacy_mmcot.PromptedTransformer.v1 a grain",
                        received=repr(grain),
                        allowed=", ".join(SEGMENT_GRAINS),
                    )
                )


def find_kind(kind: str) -> int:
    """The index into KINDS of a kind as an LLM describes it ("person/footballer", "US state")."""
    for alternative in _ALTERNATIVES.split(kind.lower()):
        for word in reversed(_WORD.findall(_TAIL.sub("", alternative))):
            singular = word.removesuffix("ies") + "y" if word.endswith("ies") else word
            for form in (word, word.removesuffix("s"), word.removesuffix("es"), singular):
                if form in _KIND_OF_WORD:
                    return _KIND_OF_WORD[form]
    return len(KINDS) - 1


def tag_tokens(doc: Doc) -> NDArray[numpy.int64]:
    """The tag of each token, shape (tokens,): the kinds of the `noun` answer where its mentions
    are found in the text."""
    items = _get_knowledge(doc).get("noun") or ()
    return mark_mentions(
        doc, [(item["mention"], 1 + 2 * find_kind(item["kind"])) for item in items]
    )


def mark_mentions(doc: Doc, mentions: Iterable[tuple[str, int]]) -> NDArray[numpy.int64]:
    """Shape (tokens,): 0, or where a mention is found its tag on the first token and tag + 1 on the
    others.

    Mentions are matched at token boundaries, without regard to case, white space and leading # or
    @. Where mentions overlap, the longest wins.
    """
    tags = numpy.zeros(len(doc), dtype="int64")
    squeezed = sorted(
        ((_squeeze(mention), tag) for mention, tag in mentions), key=lambda m: -len(m[0])
    )
    if not len(doc) or not squeezed:
        return tags
    text, first_token, last_token = _squeeze_doc(doc)
    for mention, tag in squeezed:
        at = text.find(mention) if mention else -1
        while at >= 0:
            start = first_token.get(at)
            end = last_token.get(at + len(mention))
            if start is not None and end is not None and not tags[start : end + 1].any():
                tags[start : end + 1] = tag + 1
                tags[start] = tag
            at = text.find(mention, at + 1)
    return tags


def get_segment_parts(doc: Doc, grains: Sequence[str] = SEGMENT_GRAINS) -> list[str]:
    """Those of the `grains` that the Doc has: the picture's caption, what the post means, how
    picture and post relate."""
    knowledge = _get_knowledge(doc)
    parts = (knowledge.get(name) or "" for name in SEGMENT_GRAINS if name in grains)
    return [part.strip() for part in parts if part.strip()]


def get_segment_text(doc: Doc) -> str:
    """All grains of the segment as one text."""
    return " ".join(get_segment_parts(doc))


def get_full_text(doc: Doc) -> str:
    """All knowledge of a Doc as one text, mentions and explanations first."""
    nouns = (
        f"{item['mention']}: {item['kind']}. {item.get('explanation') or ''}".strip()
        for item in _get_knowledge(doc).get("noun") or ()
    )
    return " ".join([*nouns, get_segment_text(doc)]).strip()


def _get_knowledge(doc: Doc) -> Mapping[str, Any]:
    """The Doc's knowledge, empty without any. Raises MMCoTError where it is not of the right
    form."""
    user_data: dict[Any, Any] = doc.user_data
    knowledge = user_data.get(KNOWLEDGE_KEY) or {}
    problem = _find_problem(knowledge)
    if problem:
        raise MMCoTError(Errors.E410.format(doc=repr(doc.text[:60]), problem=problem))
    return knowledge


def _find_problem(knowledge: Any) -> str | None:
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
    """In lower case, without white space and leading # or @."""
    return "".join(text.lower().split()).lstrip("#@")


def _squeeze_doc(doc: Doc) -> tuple[str, dict[int, int], dict[int, int]]:
    """The Doc's text in lower case without white space, the tokens by where they start in it, and
    the tokens by where they end."""
    text = ""
    first_token: dict[int, int] = {}
    last_token: dict[int, int] = {}
    for i, token in enumerate(doc):
        word = "".join(token.text.lower().split())
        if not word:
            continue
        first_token[len(text)] = i
        # A token such as "#NBA" is found with and without its sign.
        stripped = word.lstrip("#@")
        if stripped and stripped != word:
            first_token[len(text) + len(word) - len(stripped)] = i
        text += word
        last_token[len(text)] = i
    return text, first_token, last_token
