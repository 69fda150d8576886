"""Rows of MNRE files, and what posts made of them say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spacy_mmcot.corpus.formats import read_corpus
from spacy_mmcot.corpus.posts import Findings, Row
from spacy_mmcot.types import Post

TOKENS = ["Anna", "Lind", "sings", "in", "Oslo", ",", "Norway"]
ANNA, LIND, OSLO, NORWAY = (0, 2), (1, 2), (4, 5), (6, 7)


def row(
    head: tuple[int, int], tail: tuple[int, int], relation: str = "None", **change: object
) -> dict[str, Any]:
    def mention(pos: tuple[int, int]) -> dict[str, Any]:
        return {"name": " ".join(TOKENS[slice(*pos)]), "pos": list(pos)}

    fields = {"token": TOKENS, "h": mention(head), "t": mention(tail), "img_id": "7.jpg"}
    return {**fields, "relation": relation, **change}


def read(path: Path, findings: Findings | None = None) -> list[Row]:
    return read_corpus([path], findings or Findings())


def relations(post: Post) -> list[tuple[str, str, str]]:
    surfaces = [post.text[e.start : e.end] for e in post.entities or []]
    return [(surfaces[r.head], surfaces[r.tail], r.label) for r in post.relations or []]


def pairs(post: Post) -> list[tuple[str, str]]:
    surfaces = [post.text[e.start : e.end] for e in post.entities or []]
    return [(surfaces[head], surfaces[tail]) for head, tail in post.pairs or []]
