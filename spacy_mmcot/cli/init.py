"""`init`: a project for the user's own texts, or the demo's. `scheme`: a draft of a
label scheme from labelled posts."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import Errors, UsageError
from ..types import NO_RELATION
from .convert import Delimiter, Encoding, IdColumn, PicturesFolder, TextColumn
from .elicit import PostsFile, UrlOption

if TYPE_CHECKING:
    from ..project import Texts
    from ..scheme import RelationLabel, Scheme

_LABEL = "NAME or NAME=DEFINITION"
_RELATION = "NAME:HEAD:TAIL or NAME:HEAD:TAIL=DEFINITION"


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the project, made if it is missing.")],
    data: Annotated[
        Path | None, typer.Option(help="File of your texts, in a format that `convert` detects.")
    ] = None,
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    pictures: PicturesFolder = None,
    lang: Annotated[str | None, typer.Option(help="spaCy's language code: en, de, ...")] = None,
    domain: Annotated[
        str | None, typer.Option(help="What the texts are, such as support tickets.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=DEFINITION]", help="A further entity label; repeatable."),
    ] = None,
    relation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:HEAD:TAIL[=DEFINITION]",
            help="A relation label and the entity labels that it joins; repeatable. Without any, "
            "the pipeline finds entities alone.",
        ),
    ] = None,
    relations: Annotated[
        bool, typer.Option(help="Whether to find the relations that texts or options name.")
    ] = True,
    endpoint: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint. Default: OPENAI_BASE_URL.")
    ] = None,
    model: Annotated[str, typer.Option(help="The LLM to ask.")] = "gpt-4o-mini",
    encoder: Annotated[
        str | None, typer.Option(help="A hub name, folder, or package:NAME. Default: a small one.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the pipeline package. Default: the folder's.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Write the demo project.")] = False,
) -> None:
    """Write a project into FOLDER: project.yml, configs, scheme.yml and a README. On a terminal,
    what is not given as an option is asked."""
    from ..corpus.posts import ReadSettings
    from ..project import DEMO, inspect_texts, make_settings, name_language, write_project

    if demo:
        write_project(folder, DEMO, None)
    else:
        described = (text_column, id_column, delimiter, encoding, pictures)
        reading = ReadSettings(None, None, False, *described)
        path = _ask(data, "--data", "File of your texts")
        if "'" in path:  # project.yml has it in quotes
            expected = "a path without quotes; rename the file"
            raise UsageError(Errors.E715.format(option="--data", received=path, expected=expected))
        texts = inspect_texts(Path(path), reading)
        print(f"{texts.count} texts, {'labelled' if texts.labelled else 'without labels'}.")
        lang = _ask(lang, "--lang", "Language code", "en")
        about = {
            "language": name_language(lang),
            "domain": _ask(domain, "--domain", "What are the texts", "texts"),
        }
        scheme = _make_scheme(texts, label or [], relation or []).model_copy(update=about)
        endpoint = _ask(endpoint, "--endpoint", "URL of the LLM's endpoint", "")
        if name is None:
            words = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower())
            name = words.strip("_") or "mmcot"
        check_name(name)
        settings = make_settings(
            *(folder, texts, scheme, lang, name, encoder, endpoint, model, relations)
        )
        write_project(folder, settings, scheme)
        labels = ", ".join([*scheme.entities, *scheme.relations])
        print(f"Labels: {labels}. Their definitions are in {folder / settings.scheme}.")
    print(f"The project is in {folder}. Run it: python -m spacy project run all {folder}")


def check_name(name: str) -> None:
    """Raises UsageError where a pipeline package cannot have the name."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        allowed = "letters, digits and underscores, such as my_student"
        raise UsageError(Errors.E409.format(name="--name", received=repr(name), allowed=allowed))


def is_terminal() -> bool:
    return sys.stdin.isatty()


def _ask(given: object, option: str, question: str, default: str | None = None) -> str:
    """What is given, else what the user answers on a terminal, else the default. Raises UsageError
    where it is empty, unless the default is."""
    if given is None and is_terminal():
        given = typer.prompt(question, default=default, show_default=bool(default))
    answer = default if given is None else str(given)
    if answer is None:
        raise UsageError(Errors.E717.format(option=option))
    if not answer.strip() and default != "":
        expected = "a text that is not empty"
        raise UsageError(Errors.E715.format(option=option, received=answer, expected=expected))
    return answer


def _make_scheme(texts: Texts, labels: Sequence[str], relations: Sequence[str]) -> Scheme:
    """The labels of the texts, and those that are given or asked for."""
    from ..project import complete_scheme

    entities = dict(parse_label(text) for text in labels)
    joins = [parse_relation(text) for text in relations]
    if texts.draft is None and not entities:
        if not is_terminal():
            raise UsageError(Errors.E716.format(path=texts.path))
        for name in typer.prompt("Labels, with commas between").split(","):
            entities |= [parse_label(f"{name}={typer.prompt(f'What is {name.strip()}', '')}")]
        while typer.confirm("Another relation" if joins else "Relations between them"):
            joins.append(parse_relation(typer.prompt(_RELATION)))
    return complete_scheme(texts.draft, entities, joins)


def parse_label(text: str) -> tuple[str, str]:
    """A label and its definition, "" for none. Raises UsageError."""
    label, _, definition = (part.strip() for part in text.partition("="))
    if not label.strip("_"):
        raise UsageError(Errors.E715.format(option="--label", received=text, expected=_LABEL))
    return label, definition


def parse_relation(text: str) -> tuple[str, RelationLabel]:
    """A relation label with what it joins and means. Raises UsageError."""
    from ..scheme import RelationLabel

    joins, _, definition = text.partition("=")
    parts = [part.strip() for part in joins.split(":")]
    if len(parts) != 3 or not all(x.strip("_") for x in parts) or parts[0] == NO_RELATION:
        raise UsageError(Errors.E715.format(option="--relation", received=text, expected=_RELATION))
    label, head, tail = parts
    words = definition.strip() or label.replace("_", " ")
    return label, RelationLabel(definition=words, head=[head], tail=[tail])


def scheme(
    posts: Annotated[Path, typer.Argument(help="Labelled posts (.jsonl).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The scheme to write (.yml).")],
    language: Annotated[str, typer.Option(help="What the texts are written in.")] = "English",
    domain: Annotated[str, typer.Option(help="What they are, such as clinical notes.")] = "texts",
    ask: Annotated[bool, typer.Option("--ask", help="Have an LLM write the definitions.")] = False,
    model: Annotated[str, typer.Option(help="The LLM to ask.")] = "gpt-4o-mini",
    base_url: UrlOption = None,
) -> None:
    """Draft a label scheme from labelled POSTS: labels with their counts and typical mentions,
    relations with the types of head and tail. Read it through, and say in your own words what each
    label means."""
    from ..files import replace_file
    from ..scheme import draft_scheme, format_scheme

    update = {
        "language": _ask(language, "--language", "What are the texts written in"),
        "domain": _ask(domain, "--domain", "What are the texts"),
    }
    draft = draft_scheme(PostsFile(posts)).model_copy(update=update)
    if ask:
        from ..elicitation.client import OpenAISettings, OpenAISource
        from ..elicitation.elicit import define_labels

        source = OpenAISource(OpenAISettings(model, base_url))
        draft = define_labels(draft, source, list(PostsFile(posts)))
    with replace_file(output) as temporary:
        temporary.write_text(format_scheme(draft), encoding="utf-8")
    print(f"{len(draft.entities)} entity and {len(draft.relations)} relation labels -> {output}")
