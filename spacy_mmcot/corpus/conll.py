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
from .posts import CURE, Findings, ReadSettings, Row, make_text_id

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


def read_rows(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """The posts of a CoNLL file. One without an IMGID is named by its text.

    An I- tag that continues no entity begins one, and is reported, with `settings.repair_bio`, and
    in a file in which no B- begins one (IOB1); otherwise the post is invalid.
    """
    first = next(_iter_blocks(path, settings), None)
    has_names = first is not None and first.lines[0][1].startswith(_MARK.encode())
    is_iob1 = _is_iob1(path, settings)
    for number, block in enumerate(_iter_blocks(path, settings)):
        line = block.lines[0][0]
        with findings.checking(path, line):
            changes: list[tuple[str, str]] = []
            name = _parse_name(path, *block.lines.pop(0)) if has_names else None
            tokens, tags = _parse_lines(path, block.lines, is_iob1, settings.repair_bio, changes)
            text, entities = " ".join(tokens), read_tags(tokens, tags)
            fields = {"id": name or make_text_id(text), "text": text, "entities": entities}
            post = Post.model_validate(fields)
            for change in changes:
                findings.change(*change)
            group = f"{path}, document {block.document}" if block.document else None
            yield Row(number, post, f"line {line}", group=group, picture=name)


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
    block = next(_iter_blocks(path, settings), None)
    lines = block.lines if block is not None else []
    texts = [raw.decode("utf-8", "replace") for _, raw in lines]
    if texts and texts[0].startswith(_MARK):
        return True
    return any(map(_is_row, texts)) and all(_is_row(text) or text[0] == "#" for text in texts)


def _is_iob1(path: Path, settings: ReadSettings) -> bool:
    """Whether some I- tag begins an entity, and a B- tag only one that follows its own label."""
    found = False
    for block in _iter_blocks(path, settings):
        previous = "O"
        for _, raw in block.lines:
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


def _parse_lines(
    path: Path,
    block: Sequence[tuple[int, bytes]],
    is_iob1: bool,
    repair: bool,
    changes: list[tuple[str, str]],
) -> tuple[list[str], list[str]]:
    """The tokens and tags of a post's lines. Adds what findings should hold to `changes`."""
    lines = [(line, decode_line(path, line, raw)) for line, raw in block]
    while lines and lines[0][1].startswith("#") and not _is_row(lines[0][1]):
        del lines[0]  # a comment
    rows = [_split(text) for _, text in lines]
    is_numbered = all(len(row) > 2 and row[0] == str(i) for i, row in enumerate(rows, start=1))
    tokens: list[str] = []
    tags: list[str] = []
    previous = "O"
    for (line, text), row in zip(lines, rows, strict=True):
        columns = row[is_numbered:]
        if not 2 <= len(columns) <= 4 or not columns[0]:
            raise located(path, line, f"the line is {text!r}", _ROW, CURE)
        token, tag = columns[0], columns[-1].strip()
        if not _TAG.fullmatch(tag):
            raise located(path, line, f"the tag is {tag!r}", _TAGS, CURE)
        if tag[0] in "IELM" and previous[2:] != tag[2:] and not is_iob1:
            if not repair:
                problem = f"the tag {tag} follows the tag {previous}"
                raise located(path, line, problem, _TAGS, _BIO_CURE)
            changes.append((_REPAIRED, f"{path}, line {line}"))
        if " " in token:
            changes.append((SPACED, f"{path}, line {line}"))
        tokens.append(replace_spaces(token))
        tags.append(tag)
        previous = "O" if tag[0] in _LAST else tag
    return tokens, tags


def _split(text: str) -> list[str]:
    return text.split("\t") if "\t" in text else text.split()


def _is_row(text: str) -> bool:
    """Whether a line has two to five columns, the last of them a tag."""
    columns = _split(text)
    return 2 <= len(columns) <= 5 and bool(_TAG.fullmatch(columns[-1].strip()))
