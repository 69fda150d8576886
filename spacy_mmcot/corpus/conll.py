"""CoNLL files, with IMGID lines as in Twitter-2015 and Twitter-2017 or without.

A post is a line `TOKEN<tab>TAG` for each token, with tags O, B-LABEL and I-LABEL; a blank line ends
it. Where the file begins with a line `IMGID:NAME`, each post does; else posts are numbered. Its
text is the tokens joined by single spaces, so that splitting at the space (U+0020) gives the
tokens back, whatever other characters they hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import MMCoTError, located
from ..files import decode_line, iter_lines
from ..types import Entity, Post
from .posts import CURE, Findings, Row, guess_split, make_unique_id, validate_row

# Headline of the tokens whose spaces `replace_spaces` replaces.
SPACED = "tokens with a space inside, written with a no-break space (U+00A0)"

_MARK = "IMGID:"
_TAGS = "O, B-LABEL, or I-LABEL after a token with B- or I- of the same label"
_BIO_CURE = (
    "Correct the tag, read such a tag as B- with --repair-bio (as conlleval does), or leave the "
    "post out with --skip-invalid."
)
_REPAIRED = "I- tags that continued no entity, read as B-"

Block = list[tuple[int, bytes]]


def read_rows(
    path: Path, findings: Findings, ids: set[str], *, repair_bio: bool = False
) -> Iterator[Row]:
    """The posts of a CoNLL file. A repeated IMGID becomes `IMGID-2`, `IMGID-3`...

    repair_bio: an I- tag that continues no entity begins one, and is reported; otherwise the post
        is invalid.
    """
    named = True
    for number, block in enumerate(_iter_blocks(path)):
        if number == 0:
            named = block[0][1].startswith(_MARK.encode())
        try:
            name = _parse_name(path, *block[0]) if named else f"{path.stem}-{number}"
            post = _parse_post(path, name, block, named, findings, repair_bio)
        except MMCoTError as error:
            findings.reject(error)
            continue
        name = make_unique_id(post.id, ids)
        if name != post.id:
            findings.change("repeated ids, numbered", f"{path}, line {block[0][0]}: {name}")
        yield Row(number, post.model_copy(update={"id": name}))


def replace_spaces(token: str) -> str:
    """The token with no-break spaces for spaces, at which the text is split into tokens."""
    return token.replace(" ", "\N{NO-BREAK SPACE}")


def _iter_blocks(path: Path) -> Iterator[Block]:
    """The lines of one post each: a blank line ends a block, and an IMGID line begins one."""
    block: Block = []
    for line, raw in iter_lines(path):
        blank = not raw.strip()
        if block and (blank or raw.startswith(_MARK.encode())):
            yield block
            block = []
        if not blank:
            block.append((line, raw))
    if block:
        yield block


def _parse_name(path: Path, line: int, raw: bytes) -> str:
    head = decode_line(path, line, raw)
    name = head.removeprefix(_MARK).strip()
    if not head.startswith(_MARK) or not name:
        problem = f"the post begins with {head!r}"
        raise located(path, line, problem, "a line IMGID:NAME before the tokens", CURE)
    return name


def _parse_post(
    path: Path, name: str, block: Block, named: bool, findings: Findings, repair_bio: bool
) -> Post:
    tokens: list[str] = []
    entities: list[Entity] = []
    changes: list[tuple[str, str]] = []
    start = 0
    previous = "O"
    for line, raw in block[named:]:
        token, tag = _parse_columns(path, line, decode_line(path, line, raw))
        if " " in token:
            changes.append((SPACED, f"{path}, line {line}"))
            token = replace_spaces(token)
        if tag.startswith("I-") and previous[2:] != tag[2:]:
            if not repair_bio:
                problem = f"the tag {tag} follows the tag {previous}"
                raise located(path, line, problem, _TAGS, _BIO_CURE)
            changes.append((_REPAIRED, f"{path}, line {line}"))
            tag = f"B-{tag[2:]}"
        end = start + len(token)
        if tag.startswith("B-"):
            entities.append(Entity(start=start, end=end, label=tag[2:]))
        elif tag.startswith("I-"):
            entities[-1] = entities[-1].model_copy(update={"end": end})
        tokens.append(token)
        start, previous = end + 1, tag
    fields = {"text": " ".join(tokens), "entities": entities, "split": guess_split(path)}
    post = validate_row(path, block[0][0], Post, {"id": name, **fields})
    for headline, place in changes:
        findings.change(headline, place)
    return post


def _parse_columns(path: Path, line: int, text: str) -> tuple[str, str]:
    columns = text.split("\t")
    if len(columns) != 2 or not columns[0]:
        raise located(path, line, f"the line is {text!r}", "TOKEN<tab>TAG", CURE)
    token, tag = columns[0], columns[1].strip()
    if tag != "O" and not (tag[:2] in ("B-", "I-") and tag[2:]):
        raise located(path, line, f"the tag is {tag!r}", _TAGS, CURE)
    return token, tag
