"""`scheme`: draft a label scheme from labelled posts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .elicit import PostsFile, UrlOption


def scheme(
    posts: Annotated[Path, typer.Argument(help="Labelled posts (.jsonl).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The scheme to write (.yml).")],
    language: Annotated[str, typer.Option(help="What the texts are written in.")] = "English",
    domain: Annotated[
        str, typer.Option(help="What the texts are, such as clinical notes.")
    ] = "texts",
    ask: Annotated[bool, typer.Option("--ask", help="Have an LLM write the definitions.")] = False,
    model: Annotated[str, typer.Option(help="The LLM to ask.")] = "gpt-4o-mini",
    base_url: UrlOption = None,
) -> None:
    """Draft a label scheme from labelled POSTS: labels with their counts and typical mentions,
    relations with the types of head and tail. Read it through, and say in your own words what each
    label means."""
    from ..elicitation.elicit import define_labels
    from ..files import replace_file
    from ..scheme import draft_scheme, format_scheme

    draft = draft_scheme(PostsFile(posts)).model_copy(
        update={"language": language, "domain": domain}
    )
    if ask:
        from ..elicitation.client import OpenAISettings, OpenAISource

        settings = OpenAISettings(model, base_url)
        draft = define_labels(draft, OpenAISource(settings, "openai"), list(PostsFile(posts)))
    with replace_file(output) as temporary:
        temporary.write_text(format_scheme(draft), encoding="utf-8")
    print(f"{len(draft.entities)} entity and {len(draft.relations)} relation labels -> {output}")
