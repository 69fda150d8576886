"""What `mmcot_cascade` gains by the share of docs that it sends, and what it survives, on a server
on loopback."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_mmcot.corpus.extensions import copy_tokens
from spacy_mmcot.elicitation.money import read_total_spend
from spacy_mmcot.elicitation.store import AnswerStore
from spacy_mmcot.evaluation.scores import score_entities
from spacy_mmcot.model.knowledge import get_concluded_entities
from spacy_mmcot.scheme import Scheme, format_scheme
from tests.llm_server import LLMServer, quoted

from .elicit_runs import KEY, MODEL

_STEPS = 10
_WORKERS = 20
# USD for a million tokens. The server counts 100 tokens a question and about 30 an answer.
_PRICE = {"input": 1.0, "output": 1.0}
_COST = 130e-6


def measure_shares(nlp: Language, docs: Sequence[Doc]) -> dict[str, Any]:
    """Entity F1 with none, a tenth, ... all of the docs sent, the least confident first, and the
    share of the gain of sending all that 30% give. The server answers with the conclusions in the
    docs' knowledge, as mentions and labels.

    docs: with gold entities and conclusions.
    """
    told = {doc.text: _write_answer(doc) for doc in docs}
    with LLMServer() as server, tempfile.TemporaryDirectory() as folder:
        server.reply = lambda body: (200, told[quoted(body, "post")])
        cascade: Any = _add_cascade(nlp, docs, Path(folder), server.url)
        with nlp.select_pipes(disable=cascade.name):
            found = list(nlp.pipe(copy_tokens(doc, []) for doc in docs))
        confidences = sorted(doc._.mmcot_confidence for doc in found)
        scores, sent = [], []
        for step in range(_STEPS + 1):
            cascade.threshold = [*confidences, 1.0][round(len(docs) * step / _STEPS)]
            answered = list(cascade.pipe(doc.copy() for doc in found))
            pairs = zip(answered, docs, strict=True)
            scores.append(score_entities([Example(*pair) for pair in pairs])["ents_f"])
            sent.append(sum(doc._.mmcot_source == "llm" for doc in answered) / len(docs))
        nlp.remove_pipe(cascade.name)
    gain = scores[-1] - scores[0]
    return {
        "docs": len(docs),
        "sent": [round(share, 3) for share in sent],
        "cascade_f_by_share": {f"{i / _STEPS:.1f}": round(f, 4) for i, f in enumerate(scores)},
        "gain": round(gain, 4),
        "gain_share_at_30": round((scores[3] - scores[0]) / gain, 3) if gain > 0 else None,
    }


def _write_answer(doc: Doc) -> str:
    concluded: list[dict[str, Any]] = doc._.mmcot_knowledge["conclusion"]["entities"]
    entities = [{key: item[key] for key in ("mention", "label", "sure")} for item in concluded]
    return json.dumps({"reasoning": "", "entities": entities})


def _add_cascade(
    nlp: Language, docs: Sequence[Doc], folder: Path, url: str, **settings: Any
) -> object:
    os.environ.setdefault("OPENAI_API_KEY", KEY)
    labels = {ent.label_ for doc in docs for ent in doc.ents}
    labels |= {c.label for doc in docs for c in get_concluded_entities(doc) or ()}
    scheme, prices = folder / "scheme.yml", folder / "prices.json"
    scheme.write_text(format_scheme(Scheme(entities={name: name for name in sorted(labels)})))
    prices.write_text(json.dumps({MODEL: _PRICE}))
    paths = {"scheme": scheme, "prices": prices, "store": folder / "answers.sqlite"}
    config = {"threshold": 1.0, "model": MODEL, "base_url": url, "workers": _WORKERS, **settings}
    return nlp.add_pipe("mmcot_cascade", config={**config, **{k: str(v) for k, v in paths.items()}})


def measure_faults(
    nlp: Language, docs: Sequence[Doc], count: int = 2000, rate: float = 0.2
) -> dict[str, Any]:
    """`count` docs, all doubtful, on a server that fails in every way it can for a share `rate` of
    the requests, with a budget for about half of them. `docs_lost` counts those that do not come
    back in their place; `sources` counts whose answers they have."""
    texts = [f"{docs[i % len(docs)].text} {i}" for i in range(count)]
    budget = round(count / 2 * _COST, 4)
    with LLMServer() as server, tempfile.TemporaryDirectory() as name:
        server.configure(latency=0.02, rate=rate, seed=1)
        folder = Path(name)
        _add_cascade(nlp, docs, folder, server.url, timeout=1.0, budget=budget)
        sources: Counter[str] = Counter()
        place = lost = 0
        for place, doc in enumerate(nlp.pipe(texts, batch_size=100), start=1):
            lost += doc.text != texts[place - 1]
            sources[doc._.mmcot_source] += 1
        nlp.remove_pipe("mmcot_cascade")
        with AnswerStore(folder / "answers.sqlite", read_only=True) as store:
            spent = read_total_spend(store)
        seen = server.seen()
    return {
        "fault_docs": count,
        "docs_lost": lost + count - place,
        "sources": dict(sources),
        "requests": seen["requests"],
        "faults": seen["faults"],
        "budget_spent": round(spent, 6),
        "budget": budget,
    }
