"""What an LLM is asked about a post: kinds of question, prompts from versioned templates, and the
post's picture for models that see.

A template knows only what `render` hands to it. Knowledge templates get the text and the picture or
its caption; augmentations get the mentions' surfaces too; labels and relations reach none of them.
Of several versions of a template the newest is used, so a new file asks its dimension anew and
leaves the others alone.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import jinja2

from ..pictures.decode import make_thumbnail, open_picture
from ..pictures.read import BadPicture, PicturePolicy, hash_picture, read_picture
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


@dataclass(frozen=True)
class Kind:
    """What the questions of one dimension have in common. `schema` is the JSON schema of the
    answer, in the strict form that endpoints enforce (every field required, none beyond), None for
    plain text. `tokens` is the length of a typical answer."""

    tokens: int
    schema: dict[str, Any] | None = None
    sees_picture: bool = False
    needs_picture: bool = False
    needs_mentions: bool = False


# A model writes in order, so what judges the answer stands last in a schema.
KINDS: dict[Dimension, Kind] = {
    "noun": Kind(
        160,
        _object(things=_list(_object(mention=_TEXT, kind=_TEXT, explanation=_TEXT))),
        sees_picture=True,
    ),
    "sentence": Kind(90, sees_picture=True),
    "multimodality": Kind(80, sees_picture=True, needs_picture=True),
    "style": Kind(50),
    "entity": Kind(
        100,
        _object(text=_TEXT, swaps=_list(_list(_TEXT)), possible={"type": "boolean"}),
        needs_mentions=True,
    ),
    "image": Kind(25, sees_picture=True, needs_picture=True),
}


@dataclass(frozen=True)
class QuestionSettings:
    """What is asked about each post: prompts of which task, how many variants of each dimension
    (one of a dimension of knowledge, whatever it says), and the folder that the posts' picture
    paths start from, for a model that sees."""

    task: Task = "ner"
    variants: Mapping[Dimension, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 1))
    pictures: Path | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        dimensions: Mapping[Dimension, int] | Iterable[Dimension],
        pictures: Path | None = None,
    ) -> QuestionSettings:
        """From dimensions with or without numbers of variants."""
        if not isinstance(dimensions, Mapping):
            dimensions = dict.fromkeys(dimensions, 1)
        return cls(task, dimensions, pictures)

    def list_questions(self) -> list[tuple[Dimension, int]]:
        """Dimension and variant of each question about a post."""
        return [(name, i) for name, count in self.variants.items() for i in range(count)]

    def render(self, post: Post, dimension: Dimension, variant: int) -> Prompt | None:
        """See the function `render`."""
        return render(post, dimension, self.task, variant=variant, pictures=self.pictures)


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
    return Picture(path, hash_picture(data))


def data_url(picture: Picture) -> str:
    """The picture as a data URL, a JPEG of at most LONGEST_SIDE pixels a side. Raises
    AnswerRejected where it cannot be decoded."""
    try:
        data = read_picture(str(picture.path), _POLICY)
        jpeg = make_thumbnail(data, _POLICY, LONGEST_SIDE)
    except BadPicture as error:
        reason = f"the picture {picture.path.name} {error}"
        raise AnswerRejected(reason, final=True) from None
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


class Message(TypedDict):
    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """One question to an LLM. `template` names the file and its version, such as `ner/noun.v1`;
    `variant` counts variants of an augmentation from 0; `picture` goes with the first user
    message; `schema` is the JSON schema of the answer, None for plain text."""

    template: str
    messages: Sequence[Message]
    dimension: Dimension
    post_id: str
    variant: int = 0
    picture: Picture | None = None
    schema: Mapping[str, Any] | None = None

    def response_formats(self) -> list[dict[str, Any]]:
        """What to ask an endpoint for, best first; none for plain text. Whatever it grants, the
        answer is validated all the same."""
        if self.schema is None:
            return []
        named = {"name": self.dimension, "strict": True, "schema": self.schema}
        return [{"type": "json_schema", "json_schema": named}, {"type": "json_object"}]

    def count_bytes(self) -> int:
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
    kind, picture = KINDS[dimension], None
    if pictures is not None and kind.sees_picture:
        picture = find_picture(post.image, pictures)
    caption = (post.caption or "").strip() if picture is None else ""
    if kind.needs_picture and not caption and picture is None:
        return None
    parts = {"post": post.text, "caption": caption}
    if dimension in AUGMENTATIONS:
        # A variant of a dev or test post could only leak into training.
        if post.split in ("dev", "test"):
            return None
        mentions = list_surfaces(post)
        if kind.needs_mentions and not mentions:
            return None
        parts["mentions"] = json.dumps(mentions, ensure_ascii=False) if mentions else ""
    name = f"{task}/{dimension}.{_find_version(task, dimension)}"
    extras = {"variant": variant, "picture": picture is not None}
    messages = _render_messages(name, {**_delimit(parts), **extras})
    return Prompt(name, messages, dimension, post.id, variant, picture, kind.schema)


def render_repair(prompt: Prompt, raw: str, reason: str) -> Prompt:
    """The prompt continued by the answer it got and why that cannot be used."""
    context = {"reason": reason, "wants_json": prompt.schema is not None}
    asked = _render_messages("common/repair.v1", context)
    # Endpoints refuse an empty message of the assistant's.
    said: list[Message] = [{"role": "assistant", "content": raw}] if raw.strip() else []
    return replace(prompt, messages=[*prompt.messages, *said, *asked])


def _render_messages(name: str, context: Mapping[str, object]) -> list[Message]:
    template = _environment().get_template(f"{name}.jinja")
    rendered = template.new_context(dict(context))
    return [
        {"role": role, "content": "".join(template.blocks[role](rendered)).strip()}
        for role in ("system", "user")
        if role in template.blocks
    ]


@functools.cache
def _find_version(task: Task, dimension: Dimension) -> str:
    """The newest version that there is a file of."""
    prefix = f"{task}/{dimension}.v"
    names = [name for name in _environment().list_templates() if name.startswith(prefix)]
    return f"v{max(int(name[len(prefix) :].split('.')[0]) for name in names)}"


def list_surfaces(post: Post) -> list[str]:
    """The gold mentions as they stand in the text, in text order, each once. None for a post of
    the split `unlabelled`, which is never used with its labels."""
    if post.split == "unlabelled":
        return []
    entities = sorted(post.entities or [], key=lambda entity: entity.start)
    return list(dict.fromkeys(post.text[e.start : e.end] for e in entities))


def _delimit(parts: Mapping[str, str]) -> dict[str, str]:
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
