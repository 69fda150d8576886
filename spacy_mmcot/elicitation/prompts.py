"""What an LLM is asked about a post: kinds of question, prompts from versioned templates, and the
post's picture for models that see.

A template knows only what `render` hands to it. Knowledge templates get the text and the picture or
its caption; augmentations get the mentions' surfaces too. No template gets the post's labels or
relations: that of the conclusion gets the scheme and other posts with theirs. The scheme names
language and domain of the texts.
Of several versions of a template the newest is used, so a new file asks its dimension again and
leaves the others alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ..errors import Errors, MMCoTError
from ..messages import first_line
from ..pictures.read import Picture, find_picture
from ..scheme import RelationLabel, Scheme
from ..types import (
    AUGMENTATIONS,
    BYTES_PER_TOKEN,
    DIMENSIONS,
    NO_RELATION,
    PART_TOKENS,
    Dimension,
    Entity,
    Post,
    Task,
    split_text,
)
from .conclusion import (
    TEXT,
    Examples,
    asked_pairs,
    conclusion_schema,
    example_answer,
    list_schema,
    object_schema,
)

if TYPE_CHECKING:
    from .store import AnswerStore


@dataclass(frozen=True)
class Kind:
    """What the questions of one dimension have in common. `schema` is the JSON schema of the
    answer, in the strict form that endpoints enforce (every field required, none beyond), None for
    plain text. `tokens` is the length of a typical answer."""

    tokens: int
    schema: dict[str, Any] | None = None
    sees_picture: bool = False
    needs_picture: bool = False


# A model writes in order, so what judges the answer stands last in a schema.
KINDS: dict[Dimension, Kind] = {
    "noun": Kind(
        160,
        object_schema(things=list_schema(object_schema(mention=TEXT, kind=TEXT, explanation=TEXT))),
        sees_picture=True,
    ),
    "sentence": Kind(90, sees_picture=True),
    "multimodality": Kind(80, sees_picture=True, needs_picture=True),
    "conclusion": Kind(200, sees_picture=True),  # its schema depends on the scheme
    "style": Kind(50),
    "entity": Kind(
        100,
        object_schema(
            text=TEXT, swaps=list_schema(list_schema(TEXT)), possible={"type": "boolean"}
        ),
    ),
    "image": Kind(25, sees_picture=True, needs_picture=True),
}


@dataclass(frozen=True)
class Part:
    """The stretch of a long text, start to end (end exclusive), that one question shows."""

    start: int
    end: int
    number: int  # from 1
    count: int


@dataclass(frozen=True)
class QuestionSettings:
    """What is asked about each post: prompts of which task, how many variants of each dimension
    (one of a dimension of knowledge but the conclusion, whatever it says), and the folder that the
    posts' picture paths start from, for a model that sees.

    scheme: what the texts are, and what a conclusion is asked with; no conclusion is asked without.
    examples: labelled posts that its prompts show.
    after: the dimensions whose answers are handed on to the conclusion.
    templates: a folder whose templates go before the package's, see `check_templates`.
    image_root: the folder that a picture must lie in to be shown; None for that of `pictures`.
    part_tokens: about the tokens of text that one question shows; longer texts are asked about in
        parts. None: all are asked about as a whole, as those that name pairs are.
    """

    task: Task = "ner"
    variants: Mapping[Dimension, int] = field(
        default_factory=lambda: {name: 1 for name in DIMENSIONS if name != "conclusion"}
    )
    pictures: Path | None = None
    scheme: Scheme | None = None
    examples: Examples | None = None
    after: Sequence[Dimension] = ()
    templates: Path | None = None
    image_root: Path | None = None
    part_tokens: int | None = PART_TOKENS

    def __post_init__(self) -> None:
        if unknown := [repr(name) for name in self.variants if name not in KINDS]:
            fields = {"received": unknown[0], "allowed": ", ".join(KINDS)}
            raise MMCoTError(Errors.E409.format(name="A dimension of QuestionSettings", **fields))

    @classmethod
    def of(cls, *dimensions: Dimension) -> QuestionSettings:
        """One question of each dimension about every post."""
        return cls(variants=dict.fromkeys(dimensions, 1))

    def find_picture(self, post: Post) -> Picture | None:
        """What a model that sees is shown; see the function of this name."""
        if self.pictures is None:
            return None
        return find_picture(post.image, self.pictures, self.image_root)

    def in_stages(self) -> list[QuestionSettings]:
        """The same questions, in parts of which each needs the answers to those before it."""
        stages: list[dict[Dimension, int]] = [dict(self.variants)]
        if self.after and "conclusion" in self.variants:
            stages.append({"conclusion": stages[0].pop("conclusion")})
        return [replace(self, variants=stage) for stage in stages if stage]

    def list_questions(self, post: Post) -> Iterator[tuple[Dimension, int, Part | None]]:
        """Dimension, variant and part of each question about a post."""
        parts: list[Part | None] = [None]
        if self.part_tokens is not None and asked_pairs(post) is None:
            places = split_text(post.text, self.part_tokens)
            if len(places) > 1:
                parts = [Part(*place, i, len(places)) for i, place in enumerate(places, start=1)]
        for name, count in self.variants.items():
            for variant in range(count):
                # A long text is not augmented.
                for part in parts[:1] if name in AUGMENTATIONS else parts:
                    yield name, variant, part

    def render(
        self,
        post: Post,
        dimension: Dimension,
        variant: int = 0,
        store: AnswerStore | None = None,
        part: Part | None = None,
    ) -> Prompt | None:
        """The prompt, or None where the dimension does not apply to the post: `multimodality` and
        `image` need a picture, `entity` needs mentions, `conclusion` a scheme, and held-out posts
        and long ones are not augmented.

        A model that does not see, and one that does where the picture is not there, has the
        caption. store: has the answers to hand on to the conclusion.
        """
        kind, scheme = KINDS[dimension], self.scheme
        schema, name = kind.schema, f"{self.task}/{dimension}"
        picture = self.find_picture(post) if kind.sees_picture else None
        caption = (post.caption or "").strip() if picture is None else ""
        if kind.needs_picture and not caption and picture is None:
            return None
        parts = {"post": post.text, "caption": caption}
        if part is not None:
            parts["post"] = post.text[part.start : part.end]
            before = post.text[: min(part.start, 2 * _BEGINNING_TOKENS * BYTES_PER_TOKEN)]
            end = split_text(before, _BEGINNING_TOKENS)[0][1] if before else 0
            parts["beginning"] = before[:end].strip()
        context: dict[str, object] = {
            "variant": variant,
            "picture": picture is not None,
            "texts": "texts" if scheme is None else f"{scheme.domain} in {scheme.language}",
        }
        if dimension in AUGMENTATIONS:
            mentions = list_surfaces(post)
            # A variant of a dev or test post could only leak into training.
            is_held_out = post.split in ("dev", "test")
            if part or is_held_out or (dimension == "entity" and not mentions):
                return None
            parts["mentions"] = _to_json(mentions) if mentions else ""
        elif dimension == "conclusion":
            if scheme is None:
                return None
            name = dimension
            pairs = asked_pairs(post) if scheme.relations else None
            if pairs is not None:
                parts["pairs"] = _to_json(pairs)
            schema = conclusion_schema(scheme, pairs is not None)
            earlier = {}
            if store and self.after:
                earlier = store.texts(self.task, post.id, self.after, part.start if part else None)
            context |= {
                "earlier": {k: _delimit({k: text})[k] for k, text in earlier.items() if text},
                "scheme": scheme,
                "asks_entities": pairs is None,
                "asks_relations": bool(scheme.relations),
                "asks_pairs": pairs is not None,
                "no_relation": NO_RELATION,
                "examples": [],
            }
            if self.examples is not None:
                context["examples"] = _show_examples(self.examples, post, pairs is not None)
        name = _find_version(self.templates, name)
        quoted = _delimit(parts)
        if part is not None:
            file = f"{_find_version(self.templates, 'common/part')}.jinja"
            note = _environment(self.templates).get_template(file).render(part=part, **quoted)
            quoted["post"] += f"\n{note.strip()}"
        messages = _render_messages(name, {**quoted, **context}, self.templates)
        if part is not None:
            name += f" {part.start}-{part.end}/{len(post.text)}"
        return Prompt(name, messages, dimension, post.id, variant, picture, schema, part)


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


_TEMPLATE_NAME = re.compile(r"\.v[0-9]+\.jinja$")

# Of the text that a part comes from, as context.
_BEGINNING_TOKENS = 60


@dataclass(frozen=True)
class Prompt:
    """One question to an LLM. `template` names the file and its version, such as `ner/noun.v1`, and
    for a part of a text where that lies: `ner/noun.v1 START-END/LENGTH`; `variant` counts variants
    of an augmentation from 0; `picture` goes with the first user message; `schema` is the JSON
    schema of the answer, None for plain text."""

    template: str
    messages: Sequence[Mapping[str, str]]
    dimension: Dimension
    post_id: str
    variant: int = 0
    picture: Picture | None = None
    schema: Mapping[str, Any] | None = None
    part: Part | None = None

    def response_formats(self) -> list[dict[str, Any]]:
        """What to ask an endpoint for, best first; none for plain text. Whatever it grants, the
        answer is validated all the same."""
        if self.schema is None:
            return []
        named = {"name": self.dimension, "strict": True, "schema": self.schema}
        return [{"type": "json_schema", "json_schema": named}, {"type": "json_object"}]


def render_scheme(scheme: Scheme, posts: Iterable[Post]) -> Prompt:
    """The question what the labels of a drafted scheme mean, with labelled posts as examples."""
    relations = {name: relation.definition for name, relation in scheme.relations.items()}
    labels = {**scheme.entities, **relations}
    context = {
        "texts": f"{scheme.domain} in {scheme.language}",
        "labels": json.dumps(labels, ensure_ascii=False, indent=1),
        "examples": _show_examples(Examples(scheme, posts), None, False),
    }
    name, schema = _find_version(None, "scheme"), object_schema(**dict.fromkeys(labels, TEXT))
    return Prompt(name, _render_messages(name, context), "conclusion", "scheme", schema=schema)


def _show_examples(examples: Examples, post: Post | None, pairs: bool) -> list[dict[str, str]]:
    """The examples that a question about the post shows. pairs: whether their pairs are given."""
    shown = examples.shown_to(post)
    for example in shown:
        if (example.text, pairs) not in examples.rendered:
            given = asked_pairs(example) if pairs else None
            parts = {"post": example.text, "caption": (example.caption or "").strip()}
            parts["pairs"] = "" if given is None else _to_json(given)
            answer = example_answer(example, examples.scheme, pairs)
            examples.rendered[example.text, pairs] = {**_delimit(parts), "answer": answer}
    return [examples.rendered[example.text, pairs] for example in shown]


_LONGEST_QUOTE = 20_000  # characters of an answer that a repair round shows again


def render_repair(prompt: Prompt, raw: str, reason: str) -> Prompt:
    """The prompt continued by the answer it got and why that cannot be used."""
    context = {"reason": reason, "wants_json": prompt.schema is not None}
    asked = _render_messages("common/repair.v1", context)
    # Endpoints refuse an empty message, some a user's message after another, and all one that is
    # longer than their context, as reasoning without an end is.
    said = {"role": "assistant", "content": raw.strip()[:_LONGEST_QUOTE] or "(no answer)"}
    return replace(prompt, messages=[*prompt.messages, said, *asked])


def _render_messages(
    name: str, context: Mapping[str, object], templates: Path | None = None
) -> list[dict[str, str]]:
    try:
        template = _environment(templates).get_template(f"{name}.jinja")
        rendered = template.new_context(dict(context))
        return [
            {"role": role, "content": "".join(template.blocks[role](rendered)).strip()}
            for role in ("system", "user")
            if role in template.blocks
        ]
    except Exception as error:  # a template can do anything
        path = Path(templates or "", f"{name}.jinja")
        raise MMCoTError(Errors.E323.format(path=path, problem=first_line(error))) from None


@functools.cache
def _find_version(templates: Path | None, name: str) -> str:
    """The template's name with the newest version that there is a file of."""
    files = "\n".join(_environment(templates).list_templates())
    versions = re.findall(rf"^{name}\.v([0-9]+)\.jinja$", files, re.MULTILINE)
    return f"{name}.v{max(map(int, versions))}"


def check_templates(folder: Path) -> None:
    """Raises MMCoTError where a file of a user's templates folder has no name of a template
    (TASK/DIMENSION.vN.jinja, conclusion.vN.jinja, or a part that the package's include), is older
    than the package's, cannot be read, has no block `user`, does not show the post, or uses a
    variable that no template gets."""
    known = {_TEMPLATE_NAME.sub("", name) for name in _environment(None).list_templates()}
    known -= {"scheme", "common/repair"}  # which are never the user's
    relation = RelationLabel(definition="x", head=["X"], tail=["X"])
    scheme = Scheme(entities={"X": "x"}, relations={"r": relation})
    post = Post(id="1", text="a post", entities=[Entity(start=0, end=1, label="X")], caption="x")
    files = sorted(p for p in folder.rglob("[!.]*") if p.is_file())
    path = folder
    try:
        if not files:
            raise ValueError("the folder has no template")
        for path in files:
            name, kind = path.relative_to(folder).as_posix(), path.name.split(".")[0]
            if _TEMPLATE_NAME.sub("", name) not in known or not _TEMPLATE_NAME.search(name):
                raise ValueError("no template has this name")
            template = _environment(folder).get_template(name)
            if kind in DIMENSIONS:
                newest = f"{_find_version(folder, _TEMPLATE_NAME.sub('', name))}.jinja"
                if not (folder / newest).exists():
                    raise ValueError(f"it is not used, since there is {newest}")
                if "user" not in template.blocks:
                    raise ValueError("it has no block `user`")
                task: Task = "rel" if name.startswith("rel/") else "ner"
                settings = QuestionSettings(task, scheme=scheme, templates=folder)
                for caption in (None, "x"):
                    prompt = settings.render(post.model_copy(update={"caption": caption}), kind)
                    if prompt and not any(post.text in m["content"] for m in prompt.messages):
                        raise ValueError("it does not show the post")
    except MMCoTError:
        raise
    except (jinja2.TemplateError, ValueError) as error:
        raise MMCoTError(Errors.E323.format(path=path, problem=first_line(error))) from None


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
def _environment(templates: Path | None) -> jinja2.Environment:
    package = jinja2.PackageLoader("spacy_mmcot.elicitation")
    folders = [] if templates is None else [jinja2.FileSystemLoader(templates)]
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([*folders, package]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
