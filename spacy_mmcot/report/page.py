"""The report: one HTML page that needs no network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

from markupsafe import Markup

from .arcs import read_asset, render_template
from .browser import Item, make_articles, name_views
from .plots import make_plots
from .tables import Pipeline, make_confusions, make_differences, make_label_tables, make_scores

_STYLES = ("page.css", "theme.css", "relations.css", "overlay.css")
_SCRIPTS = ("relations.js", "report.js")


def render_page(
    title: str, subtitle: str, pipelines: Sequence[Pipeline], items: Sequence[Item]
) -> str:
    """The page about pipelines, the first of which is under review; the others are comparisons.

    items: the Docs, each with what every pipeline found, in the pipelines' order.

    Raises MMCoTError where a plot can be drawn and matplotlib is not installed.
    """
    names = [pipeline.name for pipeline in pipelines]
    articles = make_articles(names, items)
    tables = [make_scores(pipelines), make_differences(pipelines)]
    # Only these scripts run, by their digests: text that got past escaping would not be executed.
    scripts = [f"\n{read_asset(name)}" for name in _SCRIPTS]
    digests = " ".join(
        f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {digests}; "
        "base-uri 'none'; form-action 'none'"
    )
    return render_template(
        "page.html.jinja",
        title=title,
        subtitle=subtitle,
        policy=Markup(policy),
        style=Markup("".join(map(read_asset, _STYLES))),
        scripts=[Markup(script) for script in scripts],
        scores=[table for table in tables if table is not None],
        plots=make_plots(pipelines),
        labels=make_label_tables(pipelines),
        confusions=make_confusions(pipelines[0]),
        views=name_views(names),
        all_labels=sorted({label for article in articles for label in article.views[0]}),
        focus=names[0],
        readers=_describe_readers(pipelines),
        articles=articles,
    )


def _describe_readers(pipelines: Sequence[Pipeline]) -> str:
    """Which pipelines read the LLM's answers and which did not, as far as it is known."""
    read, unread = (
        [pipeline.name for pipeline in pipelines if pipeline.knowledge is known]
        for known in (True, False)
    )
    words = [f"Read by {', '.join(read)}"] if read else []
    words += [f"not seen by {', '.join(unread)}"] if unread else []
    said = "; ".join(words)
    return f"{said[:1].upper()}{said[1:]}." if said else ""
