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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..files import decode_line, iter_lines
from ..messages import located
from ..types import Post
from .posts import CURE, DEFAULTS, Findings, ReadSettings, Row, make_text_id, validate_row

# Headline of the tokens whose spaces `replace_spaces` replaces.
SPACED = "tokens with a space inside, written with a no-break space (U+00A0)"

_MARK = "IMGID:"
_DOCUMENT = "-DOCSTART-"
_TAG = re.compile(r"O|[BIESLUM]-.+")
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


class _Block(NamedTuple):
    """The lines of one post; document: its number, 0 before the first -DOCSTART-."""

    lines: list[tuple[int, bytes]]
    document: int


def read_rows(path: Path, findings: Findings, settings: ReadSettings = DEFAULTS) -> Iterator[Row]:
    """The posts of a CoNLL file. One without an IMGID is named by its text.

    An I- tag that continues no entity begins one, and is reported, with `settings.repair_bio`, and
    in a file in which no B- begins one (IOB1); otherwise the post is invalid.
    """
    named = _find_names(path, settings)
    for number, block in enumerate(_iter_blocks(path, settings)):
        with findings.checking():
            yield _parse_post(path, block, named, findings, settings)._replace(number=number)


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


def looks_like_conll(path: Path, settings: ReadSettings = DEFAULTS) -> bool:
    """Whether the file's first post has a tag in each line."""
    block = next(_iter_blocks(path, settings), None)
    lines = block.lines if block is not None else []
    texts = [raw.decode("utf-8", "replace") for _, raw in lines]
    if texts and texts[0].startswith(_MARK):
        return True
    return any(map(_is_row, texts)) and all(_is_row(text) or text[0] == "#" for text in texts)


def _find_names(path: Path, settings: ReadSettings) -> tuple[bool, bool]:
    """Whether the file's posts begin with IMGID lines, and whether it is in IOB1: no B- tag begins
    an entity that follows no other of its label, some I- tag does."""
    block = next(_iter_blocks(path, settings), None)
    has_names = block is not None and block.lines[0][1].startswith(_MARK.encode())
    starts = set()
    for found in _iter_blocks(path, settings):
        previous = "O"
        for _, raw in found.lines:
            text = raw.decode("utf-8", "replace")
            tag = _split(text)[-1].strip() if _is_row(text) else "O"
            if tag[:2] not in ("I-", "O") and (tag[:2] != "B-" or previous[2:] != tag[2:]):
                return has_names, False
            if tag[:2] == "I-" and previous[2:] != tag[2:]:
                starts.add(tag)
            previous = tag
    return has_names, bool(starts)


def _iter_blocks(path: Path, settings: ReadSettings) -> Iterator[_Block]:
    """A blank line ends a block; an IMGID or -DOCSTART- line begins one, the latter is left out."""
    block: list[tuple[int, bytes]] = []
    document = 0
    for line, raw in iter_lines(path, settings.encoding):
        starts_document = raw.startswith(_DOCUMENT.encode())
        blank = not raw.strip() or starts_document
        if block and (blank or raw.startswith(_MARK.encode())):
            yield _Block(block, document)
            block = []
        document += starts_document
        if not blank:
            block.append((line, raw))
    if block:
        yield _Block(block, document)


def _parse_name(path: Path, line: int, raw: bytes) -> str:
    head = decode_line(path, line, raw)
    name = head.removeprefix(_MARK).strip()
    if not head.startswith(_MARK) or not name:
        problem = f"the post begins with {head!r}"
        raise located(path, line, problem, "a line IMGID:NAME before the tokens", CURE)
    return name


def _parse_post(
    path: Path,
    block: _Block,
    named: tuple[bool, bool],
    findings: Findings,
    settings: ReadSettings,
) -> Row:
    """named: see `_find_names`."""
    has_names, is_iob1 = named
    first = block.lines[0][0]
    name = _parse_name(path, *block.lines[0]) if has_names else None
    tokens: list[str] = []
    tags: list[str] = []
    changes: list[tuple[str, str]] = []
    previous = "O"
    lines = [(line, decode_line(path, line, raw)) for line, raw in block.lines[has_names:]]
    while lines and lines[0][1].startswith("#") and not _is_row(lines[0][1]):
        del lines[0]  # a comment
    rows = [_split(text) for _, text in lines]
    is_numbered = all(len(row) > 2 and row[0] == str(i) for i, row in enumerate(rows, start=1))
    for line, text in lines:
        token, tag = _parse_columns(path, line, text, is_numbered)
        if " " in token:
            changes.append((SPACED, f"{path}, line {line}"))
            token = replace_spaces(token)
        if tag[0] in "IELM" and previous[2:] != tag[2:] and not is_iob1:
            if not settings.repair_bio:
                problem = f"the tag {tag} follows the tag {previous}"
                raise located(path, line, problem, _TAGS, _BIO_CURE)
            changes.append((_REPAIRED, f"{path}, line {line}"))
        tokens.append(token)
        tags.append(tag)
        previous = "O" if tag[0] in _LAST else tag
    text = " ".join(tokens)
    fields = {"id": name or make_text_id(text), "text": text, "entities": read_tags(tokens, tags)}
    post = validate_row(path, first, Post, fields)
    for headline, place in changes:
        findings.change(headline, place)
    group = f"{path}, document {block.document}" if block.document else None
    return Row(0, post, f"line {first}", group=group, picture=name)


def _split(text: str) -> list[str]:
    return text.split("\t") if "\t" in text else text.split()


def _is_row(text: str) -> bool:
    """Whether a line has two to five columns, the last of them a tag."""
    columns = _split(text)
    return 2 <= len(columns) <= 5 and bool(_TAG.fullmatch(columns[-1].strip()))


def _parse_columns(path: Path, line: int, text: str, is_numbered: bool) -> tuple[str, str]:
    columns = _split(text)[is_numbered:]
    if not 2 <= len(columns) <= 4 or not columns[0]:
        raise located(path, line, f"the line is {text!r}", _ROW, CURE)
    token, tag = columns[0], columns[-1].strip()
    if not _TAG.fullmatch(tag):
        raise located(path, line, f"the tag is {tag!r}", _TAGS, CURE)
    return token, tag
