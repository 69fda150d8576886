"""`mmcot_cascade` against an LLM on loopback: whom it asks, what becomes of the answers, and what
is left where there is none."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
import toy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

import spacy_mmcot.elicitation.client
from spacy_mmcot.elicitation import elicit, engine
from spacy_mmcot.elicitation.money import read_total_spend
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.errors import MMCoTError
from tests.llm_server import LLMServer, quoted

KEY = "sk-a-key-that-nobody-saves"
MODEL = "gpt-4o-mini"
SCHEME = """
domain: town news
entities: {PER: people by name, LOC: towns}
examples: 2
"""
RELATIONS = SCHEME + "relations: {saw: {definition: who saw a town, head: PER, tail: LOC}}\n"
# The toy student has learned none of these.
TEXTS = [
    *(f"perhaps {name} left {place} for good" for name in ("Ugo", "Zoe") for place in toy.PLACES),
    *toy.texts(),
]

Load = Callable[..., Language]
Reply = dict[str, Any]


def said(text: str, sure: str = "medium") -> Reply:
    """What the LLM of these tests concludes: Ugo and Zoe are people, and saw the towns."""
    people = [name for name in ("Ugo", "Zoe") if name in text]
    places = [place for place in toy.PLACES if place in text]
    entities = [{"mention": m, "label": "PER", "sure": sure} for m in people]
    entities += [{"mention": m, "label": "LOC", "sure": "high"} for m in places]
    pairs = [(head, tail) for head in people for tail in places]
    relations = [{"head": h, "label": "saw", "tail": t, "sure": "low"} for h, t in pairs]
    return {"reasoning": "", "entities": entities, "relations": relations}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LLMServer]:
    for name, seconds in (("_FIRST_WAIT", 0.02), ("_LONGEST_WAIT", 0.1), ("_FIRST_PAUSE", 0.05)):
        monkeypatch.setattr(engine, name, seconds)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LLMServer() as running:
        running.reply = lambda body: (200, json.dumps(said(quoted(body, "post"))))
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        yield running


@pytest.fixture(scope="session")
def student(ner_folder: Callable[[str], Path]) -> Language:
    return spacy.load(ner_folder("cnn"))


@pytest.fixture(scope="session")
def threshold(student: Language) -> float:
    """Below it are the texts with names that the student does not know."""
    found = list(student.pipe(TEXTS))
    doubtful, sure = found[:-7], found[-7:]
    highest = max(doc._.mmcot_confidence for doc in doubtful)
    lowest = min(doc._.mmcot_confidence for doc in sure)
    assert highest < lowest
    return float((highest + lowest) / 2)


@pytest.fixture
def load(student: Language, threshold: float, tmp_path: Path) -> Load:
    """The student with a cascade. words: what the file of the scheme holds."""

    def make(words: str = SCHEME, **settings: Any) -> Language:
        nlp = spacy.blank("en", vocab=student.vocab)
        nlp.add_pipe("mmcot_ner", source=student)
        (tmp_path / "scheme.yml").write_text(words, "utf-8")
        paths = {"scheme": str(tmp_path / "scheme.yml"), "store": str(tmp_path / "a.sqlite")}
        nlp.add_pipe("mmcot_cascade", config={"threshold": threshold, **paths, **settings})
        return nlp

    return make


def write_posts(path: Path, *texts: str) -> Path:
    """The toy posts with their entities, and texts without labels."""
    rows: list[dict[str, Any]] = [{"text": text, "split": "unlabelled"} for text in texts]
    for text, known in toy.posts():
        named = [dict(zip(("start", "end", "label"), e, strict=True)) for e in known["entities"]]
        rows.append({"text": text, "entities": named})
    lines = [json.dumps({"id": str(number), **row}) for number, row in enumerate(rows)]
    path.write_text("\n".join(lines), "utf-8")
    return path


def sources(docs: list[Doc]) -> Counter[str]:
    return Counter(doc._.mmcot_source for doc in docs)


def asked(server: LLMServer) -> list[str]:
    return [quoted(body, "post") for body in server.requests]


def test_doubtful_docs_are_asked_about_and_sure_ones_are_not(
    server: LLMServer, load: Load, student: Language
) -> None:
    nlp = load()
    docs = list(nlp.pipe(TEXTS))
    assert [doc.text for doc in docs] == TEXTS
    assert sorted(asked(server)) == sorted(TEXTS[:-7])
    assert server.keys == [f"Bearer {KEY}"] * 8
    assert sources(docs) == {"llm": 8, "student": 7} == nlp.get_pipe("mmcot_cascade").counts
    for doc, alone in zip(docs[:-7], student.pipe(TEXTS), strict=False):
        expected = said(doc.text)["entities"]
        found = [(e.text, e.label_, e._.mmcot_score) for e in doc.ents]
        scores = {"high": 0.95, "medium": 0.7}
        assert found == [(e["mention"], e["label"], scores[e["sure"]]) for e in expected]
        assert doc._.mmcot_confidence == alone._.mmcot_confidence  # the student's own
    assert toy.found(docs[-7:]) == toy.gold()
    prompt = json.dumps(server.requests[0])
    assert "people by name" in prompt and "town news" in prompt


def test_the_weakest_sentence_may_decide(server: LLMServer, load: Load, student: Language) -> None:
    text = "Anna sings in Oslo tonight . perhaps Ugo left Rome for good ."
    doc = student(text)
    between = (doc._.mmcot_confidence + doc._.mmcot_weakest) / 2
    assert doc._.mmcot_confidence < between < doc._.mmcot_weakest
    assert load(threshold=between)(text)._.mmcot_source == "llm"
    assert load(threshold=between, by="weakest")(text)._.mmcot_source == "student"


def test_docs_of_a_batch_are_asked_about_at_once_and_batches_are_a_stream(
    server: LLMServer, load: Load
) -> None:
    together = threading.Barrier(4)
    taken: list[str] = []

    def answer(body: Reply) -> tuple[int, str]:
        together.wait(10)
        return 200, json.dumps(said(quoted(body, "post")))

    def read() -> Iterator[str]:
        for text in TEXTS[:8]:
            taken.append(text)
            yield text

    server.reply = answer
    stream = load(workers=4).pipe(read(), batch_size=4)
    first = next(stream)
    assert first._.mmcot_source == "llm" and len(taken) <= 5
    docs = [first, *stream]
    assert [doc.text for doc in docs] == TEXTS[:8]
    assert sources(docs) == {"llm": 8}


def test_a_second_run_asks_nothing(server: LLMServer, load: Load) -> None:
    first = [doc.to_json() for doc in load().pipe(TEXTS)]
    asked_before = server.seen()["requests"], len(server.requests)
    nlp = load()
    assert [doc.to_json() for doc in nlp.pipe(TEXTS)] == first
    assert nlp(TEXTS[0])._.mmcot_source == "llm"
    assert (server.seen()["requests"], len(server.requests)) == asked_before
    # Another scheme is another question, whose answer is not the earlier one's.
    other = load(SCHEME.replace("towns", "places"))
    server.reply = lambda body: (200, '{"reasoning": "", "entities": []}')
    assert other(TEXTS[0]).ents == ()
    assert len(server.requests) == asked_before[1] + 1


def test_what_elicit_has_asked_is_not_asked_again(
    server: LLMServer, load: Load, tmp_path: Path, command: Callable[..., Any]
) -> None:
    nlp = load()
    posts = write_posts(tmp_path / "posts.jsonl", TEXTS[0])
    options = ("--source", "openai", "--model", MODEL, "--scheme", tmp_path / "scheme.yml")
    done = command("elicit", posts, tmp_path / "a.sqlite", *options, "--dimension", "conclusion")
    assert done.exit_code == 0, done.output
    before = len(server.requests)
    assert before == 8
    # With the examples that the store has of them.
    assert nlp(TEXTS[0])._.mmcot_source == "llm"
    assert len(server.requests) == before


@pytest.mark.parametrize("reply", [(500, {}), (429, {}), (200, {"choices": []}), (200, b"<html>")])
def test_the_student_answers_where_the_llm_fails(
    reply: Any, server: LLMServer, load: Load, student: Language
) -> None:
    server.reply = lambda body: reply
    nlp = load()
    docs = list(nlp.pipe(TEXTS))
    assert toy.found(docs) == toy.found(student.pipe(TEXTS))
    assert sources(docs) == {"student: llm failed": 8, "student": 7}
    assert nlp.get_pipe("mmcot_cascade").failures.total() == 8


def test_an_answer_that_cannot_be_used_is_the_students_and_not_bought_again(
    server: LLMServer, load: Load
) -> None:
    server.reply = lambda body: (200, "I would rather talk about the weather.")
    nlp = load()
    assert nlp(TEXTS[0])._.mmcot_source == "student: llm failed"
    assert len(server.requests) == 2  # with its repair round
    assert nlp(TEXTS[0])._.mmcot_source == "student: llm failed"
    assert len(server.requests) == 2


def test_an_endpoint_that_is_down_is_left_alone_for_a_while(
    server: LLMServer, load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(elicit, "_FIRST_PAUSE", 0.3)
    good, server.reply = server.reply, lambda body: (503, {})
    nlp = load(workers=8)
    with caplog.at_level(logging.WARNING):
        list(nlp.pipe(TEXTS))
    before = len(server.requests)
    assert nlp("perhaps Ugo left Lima in May")._.mmcot_source == "student: llm failed"
    assert len(server.requests) == before
    server.reply = good
    time.sleep(0.35)
    assert nlp("perhaps Ugo left Lima in May")._.mmcot_source == "llm"


def test_nobody_waits_for_as_long_as_an_endpoint_asks(server: LLMServer, load: Load) -> None:
    server.headers = {"Retry-After": "300"}
    server.reply = lambda body: (429, {})
    started = time.monotonic()
    assert load()(TEXTS[0])._.mmcot_source == "student: llm failed"
    assert time.monotonic() - started < 5 and len(server.requests) == 1


def test_a_request_that_hangs_ends_in_time(server: LLMServer, load: Load) -> None:
    server.reply = None
    server.configure(rate=1.0, kinds=["hang"])
    started = time.monotonic()
    doc = load(timeout=0.2, batch_timeout=0.5)(TEXTS[0])
    assert doc._.mmcot_source == "student: llm failed"
    assert time.monotonic() - started < 5


def test_settings_that_an_endpoint_refuses_are_an_error_at_first(
    server: LLMServer, load: Load
) -> None:
    good, server.reply = server.reply, lambda body: (401, {"error": {"message": "no such key"}})
    nlp = load()
    with pytest.raises(MMCoTError, match="E311"):
        nlp(TEXTS[0])
    refuse, server.reply = server.reply, good
    assert nlp(TEXTS[0])._.mmcot_source == "llm"
    server.reply = refuse  # as a key that was withdrawn
    assert nlp(TEXTS[1])._.mmcot_source == "student: llm failed"


def test_a_key_that_is_withdrawn_during_the_first_batch_is_no_error(
    server: LLMServer, load: Load
) -> None:
    good = server.reply
    assert good is not None
    server.reply = lambda body: good(body) if len(server.requests) < 4 else (401, {})
    docs = list(load(workers=1).pipe(TEXTS))
    assert sources(docs) == {"llm": 3, "student: llm failed": 5, "student": 7}


def test_nothing_is_asked_beyond_the_budget(
    server: LLMServer, load: Load, tmp_path: Path, student: Language
) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({MODEL: {"input": 1e6, "output": 0}}), "utf-8")  # a dollar a token
    nlp = load(prices=str(prices), budget=650.0, workers=2)
    docs = list(nlp.pipe(TEXTS))
    found = sources(docs)
    assert 1 <= found["llm"] < 8 and found["llm"] + found["student: no budget"] == 8
    for doc, alone in zip(docs, student.pipe(TEXTS), strict=True):
        assert doc._.mmcot_source == "llm" or toy.found([doc]) == toy.found([alone])
    before = len(server.requests)
    again = list(nlp.pipe([*TEXTS, "perhaps Ugo left Lima in May"], batch_size=3))
    assert sources(again)["llm"] == found["llm"]
    assert again[-1]._.mmcot_source == "student: no budget"
    assert len(server.requests) == before
    with AnswerStore(tmp_path / "a.sqlite", read_only=True) as store:
        assert 0 < read_total_spend(store) <= 650


def test_the_rate_holds_from_batch_to_batch(server: LLMServer, load: Load) -> None:
    nlp = load(rpm=300)
    started = time.monotonic()
    docs = list(nlp.pipe(TEXTS[:8], batch_size=2))
    # Bursts of a second's worth are let through: five, then one each fifth of a second.
    assert sources(docs) == {"llm": 8} and time.monotonic() - started > 1.0


def test_round_trip_takes_scheme_and_examples_along_and_never_the_key(
    server: LLMServer, load: Load, tmp_path: Path
) -> None:
    examples = write_posts(tmp_path / "posts.jsonl")
    nlp = load(examples=str(examples))
    nlp.to_disk(tmp_path / "saved")
    data = nlp.to_bytes()
    first = nlp(TEXTS[0]).to_json()
    assert any(text in json.dumps(server.requests[0]) for text in toy.texts())
    examples.unlink()
    (tmp_path / "scheme.yml").unlink()
    copies = [spacy.load(tmp_path / "saved"), spacy.load(tmp_path / "saved").from_bytes(data)]
    copies[1].remove_pipe("mmcot_cascade")
    config = {k: v for k, v in nlp.get_pipe_config("mmcot_cascade").items() if k != "factory"}
    copies[1].add_pipe("mmcot_cascade", config=config)
    copies[1].from_bytes(data)
    copied = pickle.loads(pickle.dumps(nlp.get_pipe("mmcot_cascade")))
    for copy in copies:
        assert copy(TEXTS[0]).to_json() == first
    assert len(server.requests) == 1  # the same question each time
    doc = nlp.get_pipe("mmcot_ner")(nlp.make_doc(TEXTS[1]))
    assert copied(doc)._.mmcot_source == "llm"
    files = [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert files and not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY.encode() not in data + pickle.dumps(nlp.get_pipe("mmcot_cascade"))


def test_several_processes_share_store_and_order(server: LLMServer, load: Load) -> None:
    docs = list(load().pipe(TEXTS * 2, n_process=2, batch_size=4))
    assert [doc.text for doc in docs] == TEXTS * 2
    assert sources(docs) == {"llm": 16, "student": 14}
    assert sorted(asked(server)) == sorted(TEXTS[:8])  # each text once
    assert [e.text for e in docs[0].ents] == ["Ugo", "Oslo"]


def test_a_long_text_is_the_llms_where_all_of_its_parts_have_an_answer(
    server: LLMServer, load: Load, student: Language
) -> None:
    filler = "nobody sings here tonight . " * 400
    text = f"perhaps Ugo left Oslo . {filler}perhaps Zoe left Rome . {filler}"
    doc = load()(text)
    assert doc._.mmcot_source == "llm" and len(server.requests) == 2
    assert [ent.text for ent in doc.ents] == ["Ugo", "Oslo", "Zoe", "Rome"]
    good = server.reply
    assert good is not None
    server.reply = lambda body: (500, {}) if "Zoe" in quoted(body, "post") else good(body)
    other = text.replace("Oslo", "Lima")
    doc = load()(other)
    assert doc._.mmcot_source == "student: llm failed"
    assert toy.found([doc]) == toy.found([student(other)])


def test_relations_are_the_llms_where_the_scheme_has_some(server: LLMServer, load: Load) -> None:
    doc = load(RELATIONS)(TEXTS[0])
    (relation,) = doc._.mmcot_rel
    assert (relation.head.text, relation.label, relation.tail.text) == ("Ugo", "saw", "Oslo")
    assert relation.score == 0.5  # of low sureness
    assert relation.head == doc.ents[0] and relation.tail == doc.ents[1]
    copy = Doc(doc.vocab).from_bytes(doc.to_bytes())
    assert copy._.mmcot_source == "llm" and copy._.mmcot_rel[0].label == "saw"


def test_a_relation_that_the_scheme_rules_out_is_left_out(server: LLMServer, load: Load) -> None:
    scheme = RELATIONS.replace("head: PER, tail: LOC", "head: LOC, tail: PER")
    assert load(scheme)(TEXTS[0])._.mmcot_rel == ()


def test_what_other_components_have_set_stays(server: LLMServer, load: Load) -> None:
    nlp = load()
    ruler = nlp.add_pipe("entity_ruler", first=True)
    patterns = [{"label": "LOC", "pattern": "Oslo"}, {"label": "ADVERB", "pattern": "for good"}]
    ruler.add_patterns(patterns)  # type: ignore[attr-defined]
    server.reply = lambda body: (
        200,
        json.dumps(
            {
                "reasoning": "",
                "entities": [
                    {"mention": "left Oslo", "label": "PER", "sure": "high"},
                    {"mention": "perhaps", "label": "PER", "sure": "high"},
                ],
            }
        ),
    )
    doc = nlp(TEXTS[0])
    assert doc._.mmcot_source == "llm"
    found = [(e.text, e.label_, e._.mmcot_score) for e in doc.ents]
    assert found == [("perhaps", "PER", 0.95), ("Oslo", "LOC", None), ("for good", "ADVERB", None)]


def test_mentions_are_widened_to_tokens_and_do_not_overlap(server: LLMServer, load: Load) -> None:
    entities = [("Os", "LOC"), ("lo", "PER"), ("Ugo", "PER")]
    answer = [{"mention": m, "label": label, "sure": "high"} for m, label in entities]
    server.reply = lambda body: (200, json.dumps({"reasoning": "", "entities": answer}))
    doc = load()(TEXTS[0])
    assert sorted(e.text for e in doc.ents) == ["Oslo", "Ugo"]


def test_scores_are_measured_where_conclusions_and_labels_are_known(
    server: LLMServer, load: Load
) -> None:
    nlp = load()
    examples = []
    for number in range(60):
        doc = nlp.make_doc("Ugo sleeps")
        doc.set_ents([doc.char_span(0, 3, "PER")] if number % 4 else [], default="outside")
        concluded = [{"mention": "Ugo", "label": "PER", "sure": "medium", "start": 0}]
        doc._.mmcot_knowledge = {"conclusion": {"entities": concluded}}
        examples.append(Example(nlp.make_doc(doc.text), doc))
    nlp.get_pipe("mmcot_cascade").initialize(lambda: examples)  # type: ignore[attr-defined]
    copy = load().from_bytes(nlp.to_bytes())
    for one in (nlp, copy):
        (person, place) = one(TEXTS[0]).ents
        assert person._.mmcot_score == pytest.approx(0.75, abs=0.01)
        assert place._.mmcot_score == 0.95  # not measured


def test_runs_in_a_loop_that_runs_already(server: LLMServer, load: Load) -> None:
    nlp = load()

    async def main() -> Doc:
        return nlp(TEXTS[0])

    assert asyncio.run(main())._.mmcot_source == "llm"


def test_threads_may_share_a_pipeline(server: LLMServer, load: Load) -> None:
    nlp = load()
    nlp(TEXTS[0])
    found: dict[int, str] = {}

    def run(number: int) -> None:
        found[number] = nlp(TEXTS[number])._.mmcot_source

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == ["llm"] * 8


def test_empty_docs_and_pipelines_in_part(server: LLMServer, load: Load) -> None:
    nlp = load(threshold=1.0)
    for doc in (nlp(""), nlp(" \n ")):
        assert doc._.mmcot_source == "student"
    with nlp.select_pipes(disable="mmcot_cascade"):
        assert nlp(TEXTS[0])._.mmcot_source is None
    with nlp.select_pipes(disable="mmcot_ner"), pytest.warns(UserWarning, match="W601"):
        assert nlp(TEXTS[0])._.mmcot_source is None
    assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 30}, r"E409.*threshold is 30.*from 0\.0 to 1\.0"),
        ({"workers": 0}, "E409.*workers is 0"),
        ({"rpm": 0}, "E409.*rpm is 0"),
        ({"budget": -1}, "E409.*budget is -1"),
        ({"base_url": "https://me:secret@llm/v1"}, "E409.*base_url.*OPENAI_BASE_URL"),
        ({"threshold": None}, "E409.*threshold is not set"),
        ({"scheme": None}, "E409.*scheme is not set"),
        ({"scheme": "nowhere.yml"}, "E100.*nowhere.yml"),
        ({"examples": "nowhere.jsonl"}, "E100.*nowhere.jsonl"),
        ({"prices": "nowhere.json"}, "E100.*nowhere.json"),
        ({"base_url": "llm"}, "E315"),
        ({"base_url": "http://llm/v1"}, "E318"),
        ({"model": "nobody-knows", "budget": 1}, "E321.*nobody-knows"),
    ],
)
def test_settings_that_cannot_be_used(
    settings: dict[str, Any], message: str, server: LLMServer, load: Load
) -> None:
    with pytest.raises(MMCoTError, match=message) as raised:
        load(**settings)(TEXTS[0])
    assert "secret" not in str(raised.value)
    assert server.requests == []


def test_without_the_packages_that_ask(
    server: LLMServer, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    nlp = load()
    monkeypatch.delitem(sys.modules, "spacy_mmcot.elicitation.client")
    monkeypatch.delattr(spacy_mmcot.elicitation, "client")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MMCoTError, match=r"E812.*mmcot_cascade needs aiohttp"):
        nlp(TEXTS[0])


def test_without_a_key(
    server: LLMServer, load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    load().to_disk(tmp_path / "saved")
    nlp = spacy.load(tmp_path / "saved")  # to look at it needs no key
    with pytest.raises(MMCoTError, match="E310"):
        nlp(TEXTS[0])
    (tmp_path / "saved" / "mmcot_cascade").write_text("{}", "utf-8")
    with pytest.raises(MMCoTError, match=r"E207.*scheme"):
        spacy.load(tmp_path / "saved")
