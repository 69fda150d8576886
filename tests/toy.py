"""A toy corpus of which every name is known, and pipelines small enough to fit to it in seconds."""

from __future__ import annotations

import copy
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam, fix_random_seed
from transformers import BertConfig, BertModel, BertTokenizerFast

PEOPLE = ("Anna", "Bo", "Carla Diaz", "Dmitri", "Eve Li", "Farid")
PLACES = ("Oslo", "New York", "Rome", "Lima")
FRAMES = (
    "{person} sings in {place} tonight",
    "we flew to {place} with {person}",
    "{place} , here comes {person}",
    "nobody saw {person} leaving {place} again",
)
LABELS = ("LOC", "PER")

# What the factory's default model does in 96 dimensions, in 32.
TOK2VEC = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "pretrained_vectors": None,
    "width": 32,
    "depth": 2,
    "embed_size": 500,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": True,
}
LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "grad_factor": 1.0,
    "pooling": {"@layers": "reduce_first.v1"},
}


def posts() -> list[tuple[str, dict[str, Any]]]:
    """Texts with their entities, and one without any."""
    rows: list[tuple[str, dict[str, Any]]] = [("nobody sings here tonight", {"entities": []})]
    for i, person in enumerate(PEOPLE):
        place = PLACES[i % len(PLACES)]
        text = FRAMES[i % len(FRAMES)].format(person=person, place=place)
        entities = []
        for name, label in ((person, "PER"), (place, "LOC")):
            start = text.index(name)
            entities.append((start, start + len(name), label))
        rows.append((text, {"entities": sorted(entities)}))
    return rows


def texts() -> list[str]:
    return [text for text, _ in posts()]


def examples(nlp: Language) -> list[Example]:
    return [Example.from_dict(nlp.make_doc(text), labels) for text, labels in posts()]


def settings(crf: bool = True, tok2vec: dict[str, Any] = TOK2VEC, **more: Any) -> dict[str, Any]:
    """The config of a component without dropout."""
    model = {
        "@architectures": "spacy_mmcot.Tagger.v1",
        "dropout": 0.0,
        "crf": crf,
        "tok2vec": copy.deepcopy(tok2vec),
    }
    return {"model": model, **more}


def pipeline(**more: Any) -> Language:
    """A pipeline with an uninitialised mmcot_ner."""
    nlp = spacy.blank("en")
    nlp.add_pipe("mmcot_ner", config=settings(**more))
    return nlp


def initialised(**more: Any) -> Language:
    nlp = pipeline(**more)
    fix_random_seed(0)
    nlp.initialize(lambda: examples(nlp))
    return nlp


def transformer_pipeline(source: Path | str, **encoder: Any) -> Language:
    """A pipeline of the stock transformer component, with our encoder, and mmcot_ner."""
    nlp = spacy.blank("en")
    model = {
        "@architectures": "spacy_mmcot.PromptedTransformer.v1",
        "source": str(source),
        "embedding_dropout": 0.0,
        "freeze_word_embeddings": False,
        "encoder_lr_scale": 1.0,
        **encoder,
    }
    nlp.add_pipe("transformer", config={"model": model})
    nlp.add_pipe("mmcot_ner", config=settings(tok2vec=LISTENER))
    return nlp


def fit(
    nlp: Language, data: Sequence[Example], steps: int = 60, rate: float = 0.01
) -> dict[str, float]:
    """Full-batch steps; returns the losses of the last one."""
    optimizer = Adam(rate)
    losses: dict[str, float] = {}
    for _ in range(steps):
        losses = nlp.update(data, sgd=optimizer, losses={})
    return losses


def loss(nlp: Language, data: Sequence[Example]) -> float:
    """The loss of mmcot_ner on a batch that it does not learn from."""
    return nlp.update(data, sgd=False, losses={})["mmcot_ner"]  # type: ignore[arg-type]


def found(docs: Iterable[Doc]) -> list[list[tuple[int, int, str]]]:
    return [[(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents] for doc in docs]


def scores(doc: Doc) -> list[float]:
    return [ent._.mmcot_score for ent in doc.ents]


def gold() -> list[list[tuple[int, int, str]]]:
    return [list(labels["entities"]) for _, labels in posts()]


def write_bert(folder: Path, width: int = 32) -> Path:
    """A BERT of random weights that knows single characters only."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], *characters]
    pieces += [f"##{character}" for character in characters]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    fix_random_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=160,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(vocabulary)).save_pretrained(folder)
    return folder
