"""What reviewed texts bring: a student that learned from an LLM's conclusions alone chooses texts,
gold labels stand for the person who corrects them, and the student is trained again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.cli.train import train
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_mmcot.corpus.docbin import make_examples, read_docs, write_docs
from spacy_mmcot.corpus.extensions import copy_tokens
from spacy_mmcot.distillation.conclusions import collect_labels, set_labels_from_conclusions
from spacy_mmcot.evaluation.evaluate import evaluate
from spacy_mmcot.evaluation.review import Order, choose_reviews
from spacy_mmcot.types import ID_KEY, KNOWLEDGE_KEY

ORDERS: tuple[Order, ...] = ("doubt", "random")


def simulate_reviews(
    labelled: Path,
    dev: Path,
    output: Path,
    counts: Sequence[int],
    config: Path,
    settings: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """F1 on dev for each number of reviewed texts, in the order of `review` and at random.

    labelled: Docs with gold entities, which are hidden, and conclusions. output: folder for the
    pipelines. settings: of the config.
    """
    docs = list(read_docs(labelled, Vocab()))
    hidden = [_hide_labels(doc) for doc in docs]
    scored = {"order": "none", "reviewed": 0, **_train(hidden, dev, output / "0", config, settings)}
    yield scored
    nlp = spacy.load(output / "0" / "model-best")
    for order in ORDERS:
        bare = [Doc(nlp.vocab).from_bytes(doc.to_bytes()) for doc in hidden]
        examples = list(make_examples(nlp, bare, knowledge=False))
        chosen = choose_reviews(nlp, examples, ["train"] * len(docs), max(counts), order=order)
        ids = [review.post.id for review in chosen]
        for count in counts:
            reviewed = set(ids[:count])
            mixed = [
                doc if doc.user_data[ID_KEY] in reviewed else bare
                for doc, bare in zip(docs, hidden, strict=True)
            ]
            folder = output / f"{order}{count}"
            yield {
                "order": order,
                "reviewed": count,
                **_train(mixed, dev, folder, config, settings),
            }


def _hide_labels(doc: Doc) -> Doc:
    return copy_tokens(doc, [ID_KEY, KNOWLEDGE_KEY])


def _train(
    docs: Sequence[Doc], dev: Path, folder: Path, config: Path, settings: dict[str, Any]
) -> dict[str, Any]:
    """Train a student on the Docs' labels and conclusions. Returns its scores on dev."""
    taught = folder / "taught.spacy"
    entities, _ = collect_labels(docs)
    copies = [Doc(doc.vocab).from_bytes(doc.to_bytes()) for doc in docs]
    write_docs(taught, set_labels_from_conclusions(copies, entities))
    paths = {"paths.train": str(taught), "paths.dev": str(dev)}
    train(config, folder, overrides={**paths, **settings})
    nlp = spacy.load(folder / "model-best")
    metrics = evaluate(nlp, read_docs(dev, nlp.vocab))
    return {key: metrics[key] for key in ("ents_p", "ents_r", "ents_f")}
