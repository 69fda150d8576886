"""JSON schemas of the structured answers, in the strict form that endpoints enforce: every field
required, none beyond.

Posts' pictures for models that see: found, named by their content, scaled down, encoded.

Prompts: versioned jinja2 templates, rendered for one post and one dimension.

A template knows only what `render` hands to it. The knowledge grains get the text and the picture
or its caption; the augmentations get the mentions' surfaces too; labels and relations reach none
of them. Of several versions of a template the newest is used, so a new file asks its dimension
anew and leaves the others alone.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import jinja2

from ..pictures.decode import open_picture, small_jpeg
from ..pictures.read import BadPicture, PicturePolicy, digest, read_picture
from ..types import AUGMENTATIONS, Dimension, Post, Task
from .replies import AnswerRejected

_TEXT = {"type": "string"}


def _object(**fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


# The judgement stands last: a model writes in order, so it judges what it has written.
_SCHEMAS: dict[Dimension, dict[str, Any]] = {
    "noun": _object(things=_list(_object(mention=_TEXT, kind=_TEXT, explanation=_TEXT))),
    "entity": _object(text=_TEXT, swaps=_list(_list(_TEXT)), possible={"type": "boolean"}),
}


def answer_schema(dimension: Dimension) -> dict[str, Any] | None:
    """The schema of a dimension's answer, None where it is plain text."""
    return _SCHEMAS.get(dimension)


def response_formats(dimension: Dimension) -> list[dict[str, Any]]:
    """What to ask an endpoint for, best first; none for plain text. Whatever it grants, the
    answer is validated all the same."""
    schema = answer_schema(dimension)
    if schema is None:
        return []
    named = {"name": dimension, "strict": True, "schema": schema}
    return [{"type": "json_schema", "json_schema": named}, {"type": "json_object"}]


# Pixels of the longer side. Endpoints scale to about this for their cheap level of detail.
LONGEST_SIDE = 512
_POLICY = PicturePolicy()


@dataclass(frozen=True)
class Picture:
    """A picture file and the SHA-256 of its bytes."""

    path: Path
    digest: str


def find_picture(image: str | None, folder: Path) -> Picture | None:
    """The picture that a post in a file of `folder` names; None where there is none, or none that
    can be read. Web addresses are not fetched."""
    if not image or "://" in image:
        return None
    path = folder / image
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return _picture(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=16)
def _picture(path: Path, changed: int, size: int) -> Picture | None:
    try:
        data = read_picture(str(path), _POLICY)
        open_picture(data, _POLICY)
    except BadPicture:
        return None
    return Picture(path, digest(data))


def data_url(picture: Picture) -> str:
    """The picture as a data URL, a JPEG of at most LONGEST_SIDE pixels a side. Raises
    AnswerRejected where it cannot be decoded."""
    try:
        data = read_picture(str(picture.path), _POLICY)
        jpeg = small_jpeg(data, _POLICY, LONGEST_SIDE)
    except BadPicture as error:
        reason = f"the picture {picture.path.name} {error}"
        raise AnswerRejected(reason, final=True) from None
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


_SEES: frozenset[Dimension] = frozenset({"noun", "sentence", "multimodality", "image"})
_NEEDS_PICTURE: frozenset[Dimension] = frozenset({"multimodality", "image"})
_JSON: frozenset[Dimension] = frozenset({"noun", "entity"})


class Message(TypedDict):
    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """One question to an LLM. `template` names the file and its version, such as `ner/noun.v1`;
    `variant` counts rewritings of one kind from 0; `picture` goes with the last user message."""

    template: str
    messages: Sequence[Message]
    dimension: Dimension
    post_id: str
    variant: int = 0
    picture: Picture | None = None

    @property
    def wants_json(self) -> bool:
        return self.dimension in _JSON

    def length(self) -> int:
        """Bytes of text in the messages."""
        return sum(len(message["content"].encode("utf-8", "replace")) for message in self.messages)


def render(
    post: Post,
    dimension: Dimension,
    task: Task = "ner",
    *,
    variant: int = 0,
    pictures: Path | None = None,
) -> Prompt | None:
    """The prompt, or None where the dimension does not apply to the post: `multimodality` and
    `image` need a picture, `entity` needs mentions, and held-out posts are not augmented.

    `pictures` is the folder that the posts' picture paths start from, for a model that sees; other
    models, and posts whose picture is not there, have the caption.
    """
    picture = None
    if pictures is not None and dimension in _SEES:
        picture = find_picture(post.image, pictures)
    caption = (post.caption or "").strip() if picture is None else ""
    if dimension in _NEEDS_PICTURE and not caption and picture is None:
        return None
    parts = {"post": post.text, "caption": caption}
    if dimension in AUGMENTATIONS:
        # A variant of a dev or test post could only leak into training.
        if post.split in ("dev", "test"):
            return None
        mentions = surfaces(post)
        if dimension == "entity" and not mentions:
            return None
        parts["mentions"] = json.dumps(mentions, ensure_ascii=False) if mentions else ""
    name = f"{task}/{dimension}.{_version(task, dimension)}"
    extras = {"variant": variant, "picture": picture is not None}
    messages = _messages(name, {**_fenced(parts), **extras})
    return Prompt(name, messages, dimension, post.id, variant, picture)


def repair(prompt: Prompt, raw: str, reason: str) -> Prompt:
    """The prompt continued by the answer it got and why that cannot be used."""
    asked = _messages("common/repair.v1", {"reason": reason, "wants_json": prompt.wants_json})
    # Endpoints refuse an empty message of the assistant's.
    said: list[Message] = [{"role": "assistant", "content": raw}] if raw.strip() else []
    return replace(prompt, messages=[*prompt.messages, *said, *asked])


def _messages(name: str, context: Mapping[str, object]) -> list[Message]:
    template = _environment().get_template(f"{name}.jinja")
    rendered = template.new_context(dict(context))
    return [
        {"role": role, "content": "".join(template.blocks[role](rendered)).strip()}
        for role in ("system", "user")
        if role in template.blocks
    ]


@functools.cache
def _version(task: Task, dimension: Dimension) -> str:
    """The newest version that there is a file of."""
    prefix = f"{task}/{dimension}.v"
    names = [name for name in _environment().list_templates() if name.startswith(prefix)]
    return f"v{max(int(name[len(prefix) :].split('.')[0]) for name in names)}"


def surfaces(post: Post) -> list[str]:
    """The gold mentions as they stand in the text, in text order, each once. None for a post of
    the split `unlabelled`, which is never used with its labels."""
    if post.split == "unlabelled":
        return []
    entities = sorted(post.entities or [], key=lambda entity: entity.start)
    return list(dict.fromkeys(post.text[e.start : e.end] for e in entities))


def _fenced(parts: Mapping[str, str]) -> dict[str, str]:
    # The tags' key is a hash of what they enclose, so that no post can hold its own closing tag,
    # and the text need not be escaped: mentions are to be copied from it letter by letter.
    key = hashlib.sha256("\0".join(parts.values()).encode("utf-8", "replace")).hexdigest()[:10]
    return {
        name: f"<{name}-{key}>\n{text}\n</{name}-{key}>" if text else ""
        for name, text in parts.items()
    }


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("spacy_mmcot.elicitation"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        auto_reload=False,
    )
