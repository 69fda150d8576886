"""Prompts: versioned jinja2 templates, rendered for one post and one dimension.

A template knows only what `render` hands to it. The knowledge grains get the text and the caption;
the augmentations get the mentions' surfaces too; labels and relations reach none of them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import jinja2

from ..types import AUGMENTATIONS, Dimension, Post, Task

VERSION = "v1"
_NEEDS_PICTURE: frozenset[Dimension] = frozenset({"multimodality", "image"})
_JSON: frozenset[Dimension] = frozenset({"noun", "entity"})


class Message(TypedDict):
    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """One question to an LLM. `template` names the file and its version, such as `ner/noun.v1`."""

    template: str
    messages: Sequence[Message]
    dimension: Dimension
    post_id: str

    @property
    def wants_json(self) -> bool:
        return self.dimension in _JSON


def render(post: Post, dimension: Dimension, task: Task = "ner") -> Prompt | None:
    """The prompt, or None where the dimension does not apply to the post: `multimodality` and
    `image` need a caption, `entity` needs mentions, and held-out posts are not augmented."""
    caption = (post.caption or "").strip()
    if dimension in _NEEDS_PICTURE and not caption:
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
    name = f"{task}/{dimension}.{VERSION}"
    template = _environment().get_template(f"{name}.jinja")
    context = template.new_context(_fenced(parts))
    messages: list[Message] = [
        {"role": role, "content": "".join(template.blocks[role](context)).strip()}
        for role in ("system", "user")
    ]
    return Prompt(name, messages, dimension, post.id)


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
    )
