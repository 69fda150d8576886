"""Scores on the tokens that a pipeline will meet: its own tokenizer's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
import toy
from click.testing import CliRunner, Result
from spacy.cli import app
from spacy.language import Language
from typer.main import get_command

from spacy_mmcot import evaluate
from spacy_mmcot.corpus.docbin import Corpus, make_examples, write_docs
from spacy_mmcot.corpus.docs import make_doc
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import Entity, Post

Command = Callable[..., Result]

# In the third, the tokenizer makes one token of what convert cuts into two.
TEXTS = {
    "we saw Anna": "Anna",
    "Anna sings": "Anna",
    "we saw @Anna": "Anna",
    "saw Anna-Rosa": "Rosa",
}


def make_posts() -> list[Post]:
    posts = []
    for number, (text, name) in enumerate(TEXTS.items()):
        start = text.index(name)
        entity = Entity(start=start, end=start + len(name), label="PER")
        posts.append(Post(id=str(number), text=text, entities=[entity]))
    return posts


@pytest.fixture(scope="module")
def fitted() -> Language:
    nlp = toy.pipeline()
    gold = list(make_examples(nlp, [make_doc(nlp, post) for post in make_posts()]))
    toy.fix_random_seed(0)
    nlp.initialize(lambda: gold)
    toy.fit(nlp, gold, steps=30, rate=0.01)
    return nlp


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    nlp = spacy.blank("en")
    write_docs(tmp_path / "dev.spacy", [make_doc(nlp, post) for post in make_posts()])
    return tmp_path / "dev.spacy"


def test_evaluate_says_what_the_pipeline_will_find(
    fitted: Language, corpus: Path, tmp_path: Path, command: Command
) -> None:
    docs = [make_doc(fitted, post) for post in make_posts()]
    assert evaluate(fitted, docs, tokens="gold")["ents_f"] == 1.0
    assert evaluate(fitted, docs, tokens="gold")["ents_unaligned"] == 0
    own = evaluate(fitted, docs)
    found = [[(e.start_char, e.end_char) for e in fitted(text).ents] for text in TEXTS]
    gold = [[(e.start, e.end) for e in post.entities or ()] for post in make_posts()]
    right = sum(a == b for a, b in zip(found, gold, strict=True))
    assert own["ents_r"] == right / 4 < 1.0
    n_unaligned = sum(
        fitted.make_doc(text).char_span(*place[0]) is None
        for text, place in zip(TEXTS, gold, strict=True)
    )
    assert own["ents_unaligned"] == n_unaligned > 0
    assert own["seqeval_r"] == own["ents_r"] and own["seqeval_p"] == own["ents_p"]

    fitted.to_disk(tmp_path / "model")
    printed = command("evaluate", tmp_path / "model", corpus)
    assert printed.exit_code == 0, printed.output
    shown = " ".join(printed.output.split())
    assert f"{n_unaligned} gold entities inside of tokens" in shown
    result = CliRunner().invoke(
        get_command(app),
        ["evaluate", str(tmp_path / "model"), str(corpus), "--output", str(tmp_path / "m.json")],
    )
    assert result.exit_code == 0, result.output
    metrics: Any = srsly.read_json(tmp_path / "m.json")
    assert {k: metrics[k] for k in ("ents_p", "ents_r", "ents_f")} == {
        k: pytest.approx(own[k]) for k in ("ents_p", "ents_r", "ents_f")
    }
    calibrated = command("calibrate", tmp_path / "model", corpus)
    assert f"{n_unaligned} gold entities are inside of tokens" in calibrated.output


def test_the_reader_takes_the_tokens_that_it_is_told_to(corpus: Path) -> None:
    nlp = spacy.blank("en")
    for tokens in ("gold", "pipeline"):
        for example in Corpus(corpus, tokens=tokens)(nlp):  # type: ignore[arg-type]
            wanted = example.reference if tokens == "gold" else nlp.make_doc(example.reference.text)
            assert [t.text for t in example.predicted] == [t.text for t in wanted]
            assert (
                example.predicted.user_data["mmcot_id"] == example.reference.user_data["mmcot_id"]
            )
    with pytest.raises(MMCoTError, match=r"tokens is 'own'\. Allowed: gold, pipeline"):
        list(Corpus(corpus, tokens="own")(nlp))  # type: ignore[arg-type]
    given = next(iter(Corpus(corpus, tokens="pipeline", gold_entities=True)(nlp)))
    assert [e.text for e in given.predicted.ents] == ["Anna"]
