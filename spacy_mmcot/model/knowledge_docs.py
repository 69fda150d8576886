"""What an LLM wrote about a Doc as a Doc of its own, with the same mentions found in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from spacy.tokens import Doc

from .doc_pairs import DocPairs
from .knowledge import segment_text

_WORD = re.compile(r"\w+|[^\w\s]")


def knowledge_doc(entry: DocPairs) -> DocPairs:
    """The Doc's knowledge segment as a Doc, and the entry's mentions and pairs in it.

    A mention stands where the text names it last, since an LLM states its conclusion at the end;
    one that the text does not name in full stands where its last word does, and one that is not
    named at all covers the whole text.
    """
    words = _WORD.findall(segment_text(entry.doc))
    lowered = [word.lower() for word in words]
    mentions = []
    for start, end, label in entry.mentions:
        surface = [w.lower() for w in _WORD.findall(entry.doc[start:end].text) if w not in "#@"]
        place = _last(lowered, surface) or _last(lowered, surface[-1:]) or (0, len(words))
        mentions.append((*place, label))
    return DocPairs(Doc(entry.doc.vocab, words=words), mentions, entry.pairs)


def _last(words: Sequence[str], wanted: Sequence[str]) -> tuple[int, int] | None:
    n = len(wanted)
    for start in range(len(words) - n, -1, -1) if n else ():
        if words[start : start + n] == wanted:
            return start, start + n
    return None
