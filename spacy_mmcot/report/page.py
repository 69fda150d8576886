"""The report: one HTML page that holds all it shows and asks no server for anything."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import jinja2
from markupsafe import Markup

from .arcs import asset
from .browser import Article, Item, make_articles, view_names
from .plots import make_plots
from .tables import (
    Pipeline,
    confusion_tables,
    differences_table,
    experiment_tables,
    label_tables,
    scores_table,
)

_STYLES = ("page.css", "theme.css", "relations.css", "overlay.css")
_SCRIPTS = ("relations.js", "report.js")


def report_page(
    title: str,
    subtitle: str,
    pipelines: Sequence[Pipeline],
    items: Sequence[Item],
    results: Mapping[str, list[dict[str, Any]]] | None = None,
) -> str:
    """The page over pipelines, the first of which is the one in question, the others what it is
    held against.

    items: the docs, each with what every pipeline found, in the pipelines' order. results: lines
    of results files by experiment, as `read_all_results` gives them; None for a page without
    plots of experiments and the gaps that they would leave.

    Raises MMCoTError where a plot can be drawn and matplotlib is not installed.
    """
    names = [pipeline.name for pipeline in pipelines]
    articles = make_articles(names, items)
    labels = sorted({label for article in articles for label in article.views[0]})
    plots, gaps = make_plots(pipelines, results or {})
    tables = [scores_table(pipelines), differences_table(pipelines)]
    experiments = [(name, experiment_tables(lines)) for name, lines in (results or {}).items()]
    # Only these scripts run, by their digests: text that got past escaping would still be inert.
    scripts = [f"\n{asset(name)}" for name in _SCRIPTS]
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {digests}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=title,
            subtitle=subtitle,
            policy=Markup(policy),
            style=Markup("".join(map(asset, _STYLES))),
            scripts=[Markup(script) for script in scripts],
            scores=[table for table in tables if table is not None],
            plots=plots,
            gaps=gaps,
            labels=label_tables(pipelines),
            confusions=confusion_tables(pipelines[0]),
            experiments=[(name, tables) for name, tables in experiments if tables],
            views=view_names(names),
            all_labels=labels,
            focus=names[0],
            readers=_readers(pipelines),
            articles=[_plain(article) for article in articles],
        )
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _plain(article: Article) -> dict[str, Any]:
    views = [sorted(view) for view in article.views]
    return {**article._asdict(), "views": json.dumps(views, ensure_ascii=False)}


def _readers(pipelines: Sequence[Pipeline]) -> str:
    """Who read the LLM's answers and who did not, as far as it is known."""
    read, unread = (
        [pipeline.name for pipeline in pipelines if pipeline.knowledge is known]
        for known in (True, False)
    )
    words = [f"Read by {', '.join(read)}"] if read else []
    words += [f"not seen by {', '.join(unread)}"] if unread else []
    said = "; ".join(words)
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def _digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode("ascii")
