"""CoNLL files: a token a line, with its tag in the last of two to four columns. A further first
column may number the tokens.

Columns are separated by tabs or, in lines without one, by spaces. Tags are BIO, where a file may
leave out the B- of entities that follow no other (IOB1), BIOES or BILOU. A blank line ends a post;
a line `IMGID:NAME` begins one and names its picture, as in Twitter-2015 and Twitter-2017; a line
`-DOCSTART-` begins a document of several. A post's text is its tokens joined by single spaces, so
that splitting at the space (U+0020) gives the tokens back, whatever other characters they hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..files import decode_line, iter_lines
from ..messages import located
from ..types import Post
from .posts import CURE, Findings, ReadSettings, Row, make_text_id

# Headline of the tokens whose spaces `replace_spaces` replaces.
SPACED = "tokens with a space inside, written with a no-break space (U+00A0)"

_MARK = "IMGID:"
_DOCUMENT = "-DOCSTART-"
TAG = re.compile(r"O|[BIESLUM]-.+")
# Of a tag: it begins an entity, or is its last.
_FIRST, _LAST = "BSU", "ESLU"
_ROW = "TOKEN and TAG, with at most two columns between them"
_TAGS = (
    "O or a tag of BIO, BIOES or BILOU, such as B-LABEL; an I-LABEL after a token with B- or I- of "
    "the same label"
)
_BIO_CURE = (
    "Correct the tag, read such a tag as B- with --repair-bio (as conlleval does), or leave the "
    "post out with --skip-invalid."
)
_REPAIRED = "I- tags that continued no entity, read as B-"


# The lines of one post by their numbers, and the number of its document, 0 before -DOCSTART-.
_Block = tuple[list[tuple[int, bytes]], int]


def read_rows(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """The posts of a CoNLL file. One without an IMGID is named by its text.

    An I- tag that continues no entity begins one, and is reported, with `settings.repair_bio`, and
    in a file in which no B- begins one (IOB1); otherwise the post is invalid.
    """
    first, _ = next(_iter_blocks(path, settings), ([(0, b"")], 0))
    has_names = first[0][1].startswith(_MARK.encode())
    is_iob1 = _is_iob1(path, settings)
    for number, (lines, document) in enumerate(_iter_blocks(path, settings)):
        place = f"line {lines[0][0]}"
        with findings.checking(path, place):
            name = _parse_name(path, *lines.pop(0)) if has_names else None
            rows = _parse_lines(path, lines)
            orphans = [] if is_iob1 else list(_find_orphans(rows))
            if orphans and not settings.repair_bio:
                line, tag, previous = orphans[0]
                problem = f"the tag {tag} follows the tag {previous}"
                raise located(path, line, problem, _TAGS, _BIO_CURE)
            tokens = [replace_spaces(token) for _, token, _ in rows]
            text, entities = " ".join(tokens), read_tags(tokens, [tag for *_, tag in rows])
            fields = {"id": name or make_text_id(text), "text": text, "entities": entities}
            post = Post.model_validate(fields)
            for line, token, _ in rows:
                if " " in token:
                    findings.change(SPACED, f"{path}, line {line}")
            for line, *_ in orphans:
                findings.change(_REPAIRED, f"{path}, line {line}")
            group = f"{path}, document {document}" if document else None
            yield Row(number, post, place, group=group, picture=name)


def read_tags(tokens: Sequence[str], tags: Sequence[str]) -> list[dict[str, Any]]:
    """The entities of BIO, BIOES or BILOU tags, in the characters of the tokens joined by spaces.
    One that begins without a B- begins where its label does."""
    entities: list[dict[str, Any]] = []
    start, previous = 0, ""
    for token, tag in zip(tokens, tags, strict=True):
        end, label = start + len(token), tag[2:]
        if label and (tag[0] in _FIRST or label != previous):
            entities.append({"start": start, "end": end, "label": label})
        elif label:
            entities[-1]["end"] = end
        start, previous = end + 1, "" if tag[0] in _LAST else label
    return entities


def replace_spaces(token: str) -> str:
    """The token with no-break spaces for spaces, at which the text is split into tokens."""
    return token.replace(" ", "\N{NO-BREAK SPACE}")


def looks_like_conll(path: Path, settings: ReadSettings) -> bool:
    """Whether the file's first post has a tag in each line."""
    lines, _ = next(_iter_blocks(path, settings), ([], 0))
    texts = [raw.decode("utf-8", "replace") for _, raw in lines]
    if texts and texts[0].startswith(_MARK):
        return True
    return any(map(_is_row, texts)) and all(_is_row(text) or text[0] == "#" for text in texts)


def _is_iob1(path: Path, settings: ReadSettings) -> bool:
    """Whether some I- tag begins an entity, and a B- tag only one that follows its own label."""
    found = False
    for lines, _ in _iter_blocks(path, settings):
        previous = "O"
        for _, raw in lines:
            text = raw.decode("utf-8", "replace")
            tag = _split(text)[-1].strip() if _is_row(text) else "O"
            if tag[0] not in "BI" or previous[2:] != tag[2:]:
                if tag[0] not in "IO":
                    return False
                found = found or tag[0] == "I"
            previous = tag
    return found


def _iter_blocks(path: Path, settings: ReadSettings) -> Iterator[_Block]:
    """A blank line ends a block; an IMGID or -DOCSTART- line begins one, the latter is left out."""
    block: list[tuple[int, bytes]] = []
    document = 0
    for line, raw in iter_lines(path, settings.encoding):
        starts_document = raw.startswith(_DOCUMENT.encode())
        blank = not raw.strip() or starts_document
        if block and (blank or raw.startswith(_MARK.encode())):
            yield block, document
            block = []
        document += starts_document
        if not blank:
            block.append((line, raw))
    if block:
        yield block, document


def _parse_name(path: Path, line: int, raw: bytes) -> str:
    head = decode_line(path, line, raw)
    name = head.removeprefix(_MARK).strip()
    if not head.startswith(_MARK) or not name:
        problem = f"the post begins with {head!r}"
        raise located(path, line, problem, "a line IMGID:NAME before the tokens", CURE)
    return name


def _parse_lines(path: Path, block: Sequence[tuple[int, bytes]]) -> list[tuple[int, str, str]]:
    """Line number, token and tag of each of a post's lines."""
    lines = [(line, decode_line(path, line, raw)) for line, raw in block]
    while lines and lines[0][1].startswith("#") and not _is_row(lines[0][1]):
        del lines[0]  # a comment
    split = [_split(text) for _, text in lines]
    is_numbered = all(len(row) > 2 and row[0] == str(i) for i, row in enumerate(split, start=1))
    rows = []
    for (line, text), columns in zip(lines, split, strict=True):
        token, *others = columns[is_numbered:] or [""]
        if not 1 <= len(others) <= 3 or not token:
            raise located(path, line, f"the line is {text!r}", _ROW, CURE)
        tag = others[-1].strip()
        if not TAG.fullmatch(tag):
            raise located(path, line, f"the tag is {tag!r}", _TAGS, CURE)
        rows.append((line, token, tag))
    return rows


def _find_orphans(rows: Iterable[tuple[int, str, str]]) -> Iterator[tuple[int, str, str]]:
    """Line, tag and tag before it of the tags that continue no entity, but should."""
    previous = "O"
    for line, _, tag in rows:
        if tag[0] in "IELM" and previous[2:] != tag[2:]:
            yield line, tag, previous
        previous = "O" if tag[0] in _LAST else tag


def _split(text: str) -> list[str]:
    return text.split("\t") if "\t" in text else text.split()


def _is_row(text: str) -> bool:
    """Whether a line has two to five columns, the last of them a tag."""
    columns = _split(text)
    return 2 <= len(columns) <= 5 and bool(TAG.fullmatch(columns[-1].strip()))
