"""Relations between the names of the toy corpus, and pipelines small enough to learn them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import spacy
import toy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from thinc.api import fix_random_seed

from spacy_mmcot.components.rel import MMCoTRel
from spacy_mmcot.types import Relation

# What each frame says of its names, by their places in it: head, tail, label.
FRAMES: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("{a} was born in {x}", (("a", "x", "born_in"),)),
    ("{x} threw {a} out", (("a", "x", "banned_from"),)),
    ("{a} employs {b}", (("a", "b", "employs"),)),
    ("{b} works for {a} in {x}", (("a", "b", "employs"),)),
    ("{a} and {b} saw {x} tonight", ()),
)
LABELS = ("banned_from", "born_in", "employs")
LEGAL = {"PER": {"LOC": ["banned_from", "born_in"], "PER": ["employs"]}}

# head start, head end, tail start, tail end, in characters, and the label
Found = tuple[int, int, int, int, str]


def settings(tok2vec: dict[str, Any] = toy.TOK2VEC, **more: Any) -> dict[str, Any]:
    """The config of a component without dropout; `hidden` and `conclusions` go to the model."""
    model = {
        "@architectures": "spacy_mmcot.PairClassifier.v1",
        "hidden": more.pop("hidden", 48),
        "dropout": 0.0,
        "conclusions": more.pop("conclusions", False),
        "tok2vec": copy.deepcopy(tok2vec),
    }
    return {"model": model, **more}


def annotated(
    nlp: Language, text: str, names: Iterable[str], relations: Iterable[tuple[str, str, str]] | None
) -> Doc:
    """A Doc with these names as entities, and relations between them by name."""
    doc = nlp.make_doc(text)
    spans = {}
    for name in names:
        start = text.index(name)
        label = "LOC" if name in toy.PLACES else "PER"
        spans[name] = doc.char_span(start, start + len(name), label=label)
    doc.set_ents(list(spans.values()), default="outside")
    if relations is not None:
        doc._.mmcot_rel = [Relation(spans[h], spans[t], label, 1.0) for h, t, label in relations]
    return doc


def references(nlp: Language) -> list[Doc]:
    """Every frame with several people and places, a Doc with one name, and one with none."""
    docs = [annotated(nlp, "nobody sings here", (), ()), annotated(nlp, "so says Bo", ["Bo"], ())]
    for i, a in enumerate(toy.PEOPLE):
        for j, (frame, relations) in enumerate(FRAMES):
            b = toy.PEOPLE[(i + 1 + j) % len(toy.PEOPLE)]
            names = {"a": a, "b": b, "x": toy.PLACES[(i + j) % len(toy.PLACES)]}
            if a in b or b in a:
                continue
            used = [name for place, name in names.items() if f"{{{place}}}" in frame]
            named = [(names[h], names[t], label) for h, t, label in relations]
            docs.append(annotated(nlp, frame.format(**names), used, named))
    return docs


def examples(nlp: Language) -> list[Example]:
    return [Example(nlp.make_doc(doc.text), doc) for doc in references(nlp)]


@functools.cache
def texts() -> list[str]:
    return [doc.text for doc in references(bare())]


def bare() -> Language:
    """A vocabulary and a tokenizer, with the extension attributes in place."""
    nlp = spacy.blank("en")
    nlp.add_pipe("mmcot_rel")
    nlp.remove_pipe("mmcot_rel")
    return nlp


def pipeline(**more: Any) -> Language:
    """A ruler that knows all names, and an uninitialised mmcot_rel."""
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler")
    patterns = [
        {"label": label, "pattern": [{"ORTH": word} for word in name.split()]}
        for label, names in (("PER", toy.PEOPLE), ("LOC", toy.PLACES))
        for name in names
    ]
    # Where the ruler takes them from: initialize empties it.
    nlp.config["initialize"]["components"]["entity_ruler"] = {"patterns": patterns}
    nlp.add_pipe("mmcot_rel", config=settings(**more))
    return nlp


def initialised(**more: Any) -> Language:
    nlp = pipeline(**more)
    fix_random_seed(0)
    nlp.initialize(lambda: examples(nlp))
    return nlp


def fitted(steps: int = 30, **more: Any) -> Language:
    nlp = initialised(**more)
    toy.fit(nlp, examples(nlp), steps=steps)
    return nlp


def transformer_pipeline(source: Path | str, **encoder: Any) -> Language:
    """The stock transformer component, with our encoder, and mmcot_ner and mmcot_rel on it, which
    read its word pieces in two ways, as those of `configs/student.cfg` do."""
    nlp = toy.transformer_pipeline(source, **encoder)
    listener = {**toy.LISTENER, "pooling": {"@layers": "reduce_mean.v1"}}
    nlp.add_pipe("mmcot_rel", config=settings(tok2vec=listener))
    return nlp


def teacher(source: Path | str) -> Language:
    """mmcot_rel that reads the LLM's conclusions."""
    nlp = toy.transformer_pipeline(source)
    nlp.remove_pipe("mmcot_ner")
    nlp.add_pipe("mmcot_rel", config=settings(tok2vec=toy.LISTENER, conclusions=True))
    return nlp


def component(nlp: Language) -> MMCoTRel:
    return nlp.get_pipe("mmcot_rel")  # type: ignore[return-value]


def loss(nlp: Language, data: Iterable[Example]) -> float:
    """The loss of mmcot_rel on a batch that it does not learn from, by its own update."""
    return component(nlp).update(data)["mmcot_rel"]


def found(docs: Iterable[Doc]) -> list[list[Found]]:
    return [
        [(h.start_char, h.end_char, t.start_char, t.end_char, label) for h, t, label, _ in rows]
        for rows in (doc._.mmcot_rel for doc in docs)
    ]


def scores(docs: Iterable[Doc]) -> list[float]:
    return [relation.score for doc in docs for relation in doc._.mmcot_rel]


@functools.cache
def gold() -> list[list[Found]]:
    return found(references(bare()))


def names(doc: Doc) -> list[tuple[str, str, str]]:
    return [(h.text, t.text, label) for h, t, label, _ in doc._.mmcot_rel]


def with_entities(nlp: Language, reference: Doc) -> Doc:
    """The reference's tokens and entities, nothing else."""
    doc = nlp.make_doc(reference.text)
    spans = [Span(doc, ent.start, ent.end, label=ent.label_) for ent in reference.ents]
    doc.set_ents(spans, default="outside")
    return doc
