"""Loaded by spaCy through the `spacy_cli` entry point: adds `mmcot` to `python -m spacy`."""

from __future__ import annotations

from spacy.cli._util import app as spacy_app

from .main import app

spacy_app.add_typer(app, name="mmcot")
