"""Texts that are too long for one question: asked about in parts, answered as one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy

from spacy_mmcot.corpus.docbin import read_all_docs
from spacy_mmcot.distillation.conclusions import set_labels_from_conclusions
from spacy_mmcot.distillation.soft_labels import get_soft_labels, get_soft_relations
from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.conclusion import Examples
from spacy_mmcot.elicitation.elicit import elicit
from spacy_mmcot.elicitation.engine import Pace
from spacy_mmcot.elicitation.prompts import QuestionSettings
from spacy_mmcot.elicitation.store import AnswerStore, load_answers
from spacy_mmcot.model.knowledge import compute_tag_priors, find_parts, tag_pairs
from spacy_mmcot.scheme import RelationLabel, Scheme, format_scheme
from spacy_mmcot.types import Entity, Post, PostRelation, split_text
from tests.llm_server import LLMServer, completion, quoted, sensible_answer, user_text

SCHEME = Scheme(
    language="German",
    domain="contracts",
    entities={"PARTEI": "parties of the contract", "ORT": "places"},
    relations={"sitz": RelationLabel(definition="has its seat", head=["PARTEI"], tail=["ORT"])},
    examples=2,
)
PARTIES = ["Möller GmbH", "Öko-Strom AG", "Weiß & Söhne", "Dr. Jünger KG"]
PLACES = ["Köln", "Zürich", "Bern", "Gößweinstein", "Graz", "Ulm", "Wien", "Jena", "Fürth", "Trier"]
TITLE = "Rahmenvertrag über die Lieferung von Strom"
# Forty sentences; each party and place is named again and again, some twice in a sentence.
SENTENCES = [
    f"Die {PARTIES[i % 4]} hat ihren Sitz in {PLACES[i % 10]}, so § {i} des Vertrags."
    if i % 5
    else f"Was die {PARTIES[i % 4]} schuldet, zahlt die {PARTIES[i % 4]} in {PLACES[i % 10]}!"
    for i in range(40)
]
TEXT = TITLE + "\n\n" + " ".join(SENTENCES)
NAMES = re.compile("|".join(map(re.escape, [*PARTIES, *PLACES])))
Command = Callable[..., Any]

TAGS = ["O", "B-ORT", "I-ORT", "B-PARTEI", "I-PARTEI"]


def find_names(text: str) -> list[tuple[int, str, str]]:
    return [(m.start(), m[0], "PARTEI" if m[0] in PARTIES else "ORT") for m in NAMES.finditer(text)]


def conclude(text: str) -> str:
    """What an LLM that makes no mistakes concludes on a text: each party has its seat at the place
    that follows."""
    names = find_names(text)
    entities = [{"mention": m, "label": label, "sure": "high"} for _, m, label in names]
    relations = [
        {"head": a[1], "label": "sitz", "tail": b[1], "sure": "high"}
        for a, b in pairwise(names)
        if (a[2], b[2]) == ("PARTEI", "ORT")
    ]
    return json.dumps({"reasoning": "Parties.", "entities": entities, "relations": relations})


def answer(body: dict[str, Any]) -> tuple[int, str]:
    concludes = '"sure"' in user_text(body)
    return 200, conclude(quoted(body, "post")) if concludes else sensible_answer(body)


@pytest.fixture
def server(endpoint: LLMServer) -> LLMServer:
    endpoint.reply = answer
    return endpoint


@pytest.fixture
def posts_file(tmp_path: Path) -> Path:
    path = tmp_path / "posts.jsonl"
    posts = [Post(id="lang", text=TEXT, split="unlabelled")]
    posts += [Post(id="kurz", text=SENTENCES[1], split="unlabelled")]
    path.write_text("".join(p.model_dump_json(exclude_none=True) + "\n" for p in posts))
    (tmp_path / "scheme.yml").write_text(format_scheme(SCHEME), encoding="utf-8")
    return path


def options(file: Path, *dimensions: str) -> list[object]:
    chosen = [word for name in dimensions for word in ("--dimension", name)]
    return [file, file.with_name("a.sqlite"), *chosen, "--scheme", file.with_name("scheme.yml")]


ASK = ("--source", "openai", "--part-tokens", 150)


def texts_shown(server: LLMServer, beyond: int = 100) -> list[str]:
    """What was shown of the long text, in its order."""
    shown = {quoted(body, "post") for body in server.requests}
    return sorted((text for text in shown if len(text) > beyond), key=TEXT.index)


def test_a_long_document_is_asked_in_parts_and_answered_as_one(
    command: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    chosen = options(posts_file, "conclusion", "noun", "sentence", "style")
    planned = command("plan", *chosen, "--part-tokens", 150)
    done = command("elicit", *chosen, *ASK)
    assert done.exit_code == 0, done.output
    parts = texts_shown(server)
    # No text is lost, none is shown twice, and each part but the last ends with a sentence.
    assert len(parts) >= 5 and "".join("".join(parts).split()) == "".join(TEXT.split())
    assert all(part.rstrip()[-1] in ".!" and len(part.encode()) <= 601 for part in parts)
    assert sum(map(len, map(find_names, parts))) == len(find_names(TEXT))
    asked = Counter(quoted(body, "post") for body in server.requests)
    assert all(asked[part] == 3 for part in parts) and asked[SENTENCES[1]] == 4
    for line in planned.stdout.splitlines():
        if line.split()[:1] in (["conclusion"], ["noun"], ["style"]):
            name, requests, _, skipped = line.split()[:4]
            assert [requests, skipped] == (
                ["1", "1"] if name == "style" else [str(len(parts) + 1), "0"]
            )
    for number, part in enumerate(parts, start=1):
        body = next(b for b in server.requests if quoted(b, "post") == part)
        assert f"part {number} of {len(parts)} of a longer text" in user_text(body)
        beginning = quoted(body, "beginning")
        assert TEXT.startswith(beginning) and beginning.startswith(TITLE) == (number > 1)
    short = next(b for b in server.requests if quoted(b, "post") == SENTENCES[1])
    assert "part 1" not in user_text(short)

    found = load_answers(tmp_path / "a.sqlite")["lang"]
    assert found.noun is not None and found.sentence is not None and found.style is None
    assert len(found.noun) == len(parts)
    assert found.sentence == "\n".join(f"On this: {part.strip()}" for part in parts)
    requests = len(server.requests)
    again = command("elicit", *chosen, *ASK)
    assert again.exit_code == 0 and len(server.requests) == requests

    output = tmp_path / "docs.spacy"
    command("convert", posts_file, "-o", output, "--answers", tmp_path / "a.sqlite", "--lang", "de")
    (doc,) = (d for d in read_all_docs(output, spacy.blank("de").vocab) if len(d.text) > 1000)
    known = doc._.mmcot_knowledge["conclusion"]
    assert [(e["start"], e["mention"], e["label"]) for e in known["entities"]] == find_names(TEXT)
    pairs = {(r["head_start"], r["tail_start"]) for r in known["relations"]}
    names = find_names(TEXT)
    assert pairs == {(a[0], b[0]) for a, b in pairwise(names) if (a[2], b[2]) == ("PARTEI", "ORT")}
    assert [tuple(place) for place in known["parts"]] == split_text(TEXT, 150)
    # Soft labels are of all mentions, and of pairs within a part alone.
    (doc,) = set_labels_from_conclusions([doc], ["ORT", "PARTEI"], ["sitz"])
    soft = get_soft_labels(doc, TAGS)
    related = get_soft_relations(doc)
    assert soft is not None and related is not None and soft.sum(axis=1) == pytest.approx(1)
    assert int((soft[:, [1, 3]] > 0.5).sum()) == len(names)
    assert int((related.probabilities[:, 1] > 0.5).sum()) == len(pairs)
    for pair in related.pairs.tolist():
        starts = [related.mentions[mention][0] for mention in pair]
        assert any(all(a <= start < b for start in starts) for a, b in known["parts"])


def test_a_part_without_an_answer_is_unknown_and_said(
    command: Command, server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    start, end = split_text(TEXT, 150)[2]
    lost = TEXT[start:end]
    server.reply = lambda body: (200, "no") if quoted(body, "post") == lost else answer(body)
    chosen = options(posts_file, "conclusion")
    done = command("elicit", *chosen, *ASK)
    place = f"lang conclusion {start}-{end}/{len(TEXT)}: the answer holds no JSON"
    assert done.exit_code == 3 and f"rejected: {place}" in done.stdout
    assert place in command("elicit", *chosen, "--failures").stdout
    output = tmp_path / "docs.spacy"
    converted = command(
        *("convert", posts_file, "-o", output, "--answers", tmp_path / "a.sqlite", "--lang", "de")
    )
    assert "parts of texts without a conclusion" in converted.stdout
    assert f"lang: characters {start} to {end}" in converted.stdout
    (doc,) = (d for d in read_all_docs(output, spacy.blank("de").vocab) if len(d.text) > 1000)
    inside = numpy.array([start <= token.idx < end for token in doc])
    assert inside.any() and ((find_parts(doc) == -1) == inside).all()
    assert (compute_tag_priors(doc, TAGS)[inside] == 0).all()
    assert (compute_tag_priors(doc, TAGS)[~inside] != 0).all()
    (doc,) = set_labels_from_conclusions([doc], ["ORT", "PARTEI"], ["sitz"])
    soft = get_soft_labels(doc, TAGS)
    assert soft is not None and (soft[inside] == 0).all()
    assert soft[~inside].sum(axis=1) == pytest.approx(1)
    expected = [m for m in find_names(TEXT) if not start <= m[0] < end]
    assert int((soft[:, [1, 3]] > 0.5).sum()) == len(expected) < len(find_names(TEXT))
    # Of pairs that were never asked about together, a teacher is not told that there is none.
    mentions = [doc[i : i + 1] for i in (4, len(doc) // 2, len(doc) - 4)]
    pairs = numpy.array([(0, 1), (0, 2), (1, 0)])
    assert (tag_pairs(doc, mentions, pairs, {"sitz": 1})[:, 0] == -1).all()


def test_a_budget_ends_between_parts_and_a_later_run_goes_on(
    command: Command, server: LLMServer, posts_file: Path
) -> None:
    chosen = (*options(posts_file, "conclusion"), *ASK, "--workers", 1)
    poor = command("elicit", *chosen, "--budget", 0.0003)
    assert poor.exit_code == 4
    first = Counter(quoted(body, "post") for body in server.requests)
    n_parts = len(split_text(TEXT, 150))
    assert 0 < len(first) < n_parts
    assert command("elicit", *chosen, "--budget", 1).exit_code == 0
    asked = Counter(quoted(body, "post") for body in server.requests)
    assert len(asked) == n_parts + 1 and set(asked.values()) == {1}


def test_a_kill_between_parts_loses_none_and_buys_none_twice(
    server: LLMServer, posts_file: Path, tmp_path: Path
) -> None:
    held, gate, good = threading.Event(), threading.Event(), list[str]()

    def reply(body: dict[str, Any]) -> tuple[int, str]:
        if len(good) >= 3:
            held.set()
            gate.wait(30)
        good.append(quoted(body, "post"))
        return answer(body)

    server.reply = reply
    start = "import typer; from spacy_mmcot.cli.elicit import elicit; typer.run(elicit)"
    words = [*options(posts_file, "conclusion"), *ASK, "--workers", 1]
    process = subprocess.Popen([sys.executable, "-c", start, *map(str, words)])
    assert held.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    gate.set()
    server.reply = answer
    found = load_answers(tmp_path / "a.sqlite")["lang"].conclusion
    assert found is not None and found.parts == split_text(TEXT, 150)[:3]
    bought = good[:3]
    server.requests.clear()
    assert subprocess.run([sys.executable, "-c", start, *map(str, words)]).returncode == 0
    asked = [quoted(body, "post") for body in server.requests]
    assert len(asked) == len(set(asked)) and not set(asked) & set(bought)
    found = load_answers(tmp_path / "a.sqlite")["lang"].conclusion
    assert found is not None and found.parts == split_text(TEXT, 150)


def make_source(server: LLMServer, name: str = "openai", model: str = "m") -> OpenAISource:
    return OpenAISource(OpenAISettings(model, base_url=server.url, api_key="sk-test"), name)


def test_batches_votes_and_earlier_answers_of_parts(server: LLMServer, store: AnswerStore) -> None:
    """The Batch API, three votes, and each part handed what was said of it alone."""
    settings = QuestionSettings(
        variants={"sentence": 1, "conclusion": 3},
        scheme=SCHEME,
        after=("sentence",),
        part_tokens=150,
    )
    bodies: list[dict[str, Any]] = []

    def keep(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        bodies.append(body)
        return 200, completion(answer(body)[1])

    server.batches._answer = keep
    post = Post(id="lang", text=TEXT)
    elicit([post], store, make_source(server, "openai-batch"), settings, pace=Pace(batch_poll=0.02))
    found = store.answers()["lang"].conclusion
    assert found is not None and found.entities and found.parts == split_text(TEXT, 150)
    assert [(e.start, e.mention, e.label) for e in found.entities] == find_names(TEXT)
    assert {e.sure for e in found.entities} == {"high"}
    concluding = [body for body in bodies if '"sure"' in user_text(body)]
    assert len(concluding) == 3 * len(found.parts)
    for body in concluding:
        assert quoted(body, "sentence") == f"On this: {quoted(body, 'post')}".strip()


def test_a_later_model_answers_part_by_part_and_a_return_restores(
    server: LLMServer, store: AnswerStore
) -> None:
    post = Post(id="lang", text=TEXT)

    def ask(model: str, tokens: int, word: str) -> str:
        server.reply = lambda body: (200, word)
        settings = QuestionSettings(variants={"sentence": 1}, part_tokens=tokens)
        elicit([post], store, make_source(server, model=model), settings)
        return store.answers()["lang"].sentence or ""

    n_parts = len(split_text(TEXT, 150))
    assert ask("m", 4000, "whole") == "whole"
    assert ask("m", 150, "part").split() == ["part"] * n_parts
    assert ask("other", 150, "later").split() == ["later"] * n_parts
    n_requests = len(server.requests)
    assert ask("m", 150, "").split() == ["part"] * n_parts
    assert ask("m", 4000, "") == "whole"
    assert len(server.requests) == n_requests
    before = store.fetch("SELECT key, seq FROM answers")
    ask("m", 4000, "")
    assert store.fetch("SELECT key, seq FROM answers") == before


def test_a_post_that_names_pairs_is_sent_whole(server: LLMServer, store: AnswerStore) -> None:
    names = find_names(TEXT)
    entities = [Entity(start=s, end=s + len(m), label=label) for s, m, label in names]
    post = Post(id="lang", text=TEXT, entities=entities, pairs=[(0, len(names) - 1)])
    settings = QuestionSettings("rel", {"conclusion": 1}, scheme=SCHEME, part_tokens=150)
    server.reply = lambda body: (200, json.dumps({"relations": []}))
    elicit([post], store, make_source(server), settings)
    assert [quoted(body, "post") for body in server.requests] == [TEXT]


def test_long_examples_are_shown_as_a_part_that_has_labels(server: LLMServer) -> None:
    names = find_names(TEXT)
    entities = [Entity(start=s, end=s + len(m), label=label) for s, m, label in names]
    relations = [PostRelation(head=0, tail=1, label="sitz")]
    post = Post(id="lang", text=TEXT, entities=entities, relations=relations)
    (shown,) = Examples(SCHEME, [post], 400).shown_to(Post(id="x", text="x"))
    assert len(shown.text) <= 200 and shown.text in TEXT and shown.id == "lang"
    assert {e.label for e in shown.entities or ()} == {"PARTEI", "ORT"}
    for entity in shown.entities or ():
        assert NAMES.fullmatch(shown.text, entity.start, entity.end)
    # No part of a text is shown with another part's labels.
    assert Examples(SCHEME, [post], 400).shown_to(post) == []
    assert Examples(SCHEME, [post], 4000).shown_to(None) == [post]


CHINESE = "甲方应在三十日内付款。" * 30 + "乙方“不得转让本合同！”双方同意。" * 20
ARABIC = "هل يدفع الطرف الأول؟ يدفع الطرف الثاني في بغداد. " * 25


@pytest.mark.parametrize("text", [TEXT, CHINESE, ARABIC, "नमस्ते दुनिया। " * 90], ids=len)
def test_parts_cover_a_text_and_end_with_sentences(text: str) -> None:
    parts = split_text(text, 100)
    assert [start for start, _ in parts] == [0, *(end for _, end in parts[:-1])]
    assert parts[-1][1] == len(text) and len(parts) > 2
    for start, end in parts:
        shown = text[start:end].rstrip()
        assert len(shown.encode()) <= 400
        assert shown[-1] in ".!؟。！।”"
    assert split_text("kurz", 100) == [(0, 4)] and split_text(text, 10**6) == [(0, len(text))]


def test_abbreviations_paragraphs_and_texts_without_borders() -> None:
    text = "Herr Dr. Jünger wohnt in der Kölner Str. 5 bei Frau Prof. Dr. Öztürk. " * 3
    for start, end in split_text(text, 30):
        assert text[start:end].strip().endswith("Öztürk.")
    # A blank line goes before a sentence's end that lies further on.
    text = "a" * 250 + "\n\n" + "Satz eins hier. " * 20
    assert split_text(text, 100)[0] == (0, 252)
    glued = "x" * 1000 + "é" * 1000
    parts = split_text(glued, 50)
    assert "".join(glued[a:b] for a, b in parts) == glued
    assert all(len(glued[a:b].encode()) <= 200 for a, b in parts)
    blank = " " * 999 + "x" * 999 + " " * 999 + "y"
    assert split_text(blank, 250) == [(0, 2997), (2997, 2998)]
