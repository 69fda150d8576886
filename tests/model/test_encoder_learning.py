"""How the encoder learns: from listeners, and from the knowledge that `teach` put on the docs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam
from tiny import WIDTH, module_of, pipeline
from transformers.modeling_outputs import BaseModelOutput

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.types import KNOWLEDGE_KEY, PROMPT_TARGET_KEY, digest_text

TEXT = "Anna Berg sings in Oslo tonight."
STUDENT: dict[str, Any] = {
    "prompt": "conditional",
    "prompt_length": 2,
    "prompt_regression": 0.5,
}
TEACHER: dict[str, Any] = {**STUDENT, "knowledge_tags": True, "segment_length": 8}


def known(nlp: Language, text: str = TEXT, target: int | None = None) -> Doc:
    """A Doc with knowledge, and a prompt target drawn from the seed `target`."""
    doc = nlp.make_doc(text)
    doc.user_data[KNOWLEDGE_KEY] = {
        "noun": [{"mention": "Oslo", "kind": "city", "explanation": ""}],
        "sentence": "A concert in the old town.",
    }
    if target is not None:
        random = numpy.random.default_rng(target)
        vectors = random.normal(size=(STUDENT["prompt_length"], WIDTH)).astype("float16")
        entry = {"text": digest_text(text), "vectors": vectors.tobytes()}
        doc.user_data[PROMPT_TARGET_KEY] = entry
    return doc


def run(
    nlp: Language, docs: list[Doc], weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, Callable[[], dict[str, torch.Tensor]]]:
    """One training pass: the states, what the prompt says of the knowledge, and a function that
    backpropagates `weights` (none: zero) from the states and returns the parameters' gradients."""
    module = module_of(nlp)
    caught: list[torch.Tensor] = []
    assert module.to_knowledge is not None
    hook = module.to_knowledge.register_forward_hook(lambda *call: caught.append(call[2]))
    output, backprop = nlp.get_pipe("transformer").model.begin_update(docs)  # type: ignore
    hook.remove()
    states = output.model_output.last_hidden_state

    def gradients() -> dict[str, torch.Tensor]:
        module.zero_grad()
        gradient = torch.zeros_like(states) if weights is None else weights
        output.model_output = BaseModelOutput(last_hidden_state=gradient)
        backprop(output)
        return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}

    return states, torch.cat(caught).detach(), gradients


def distance(prompt: torch.Tensor, doc: Doc) -> float:
    """0.5 x (1 - cosine), as documented for prompt_regression."""
    vectors = doc.user_data[PROMPT_TARGET_KEY]["vectors"]
    target = numpy.frombuffer(vectors, dtype="float16").astype("float64")
    aim = torch.from_numpy(target).view(-1, WIDTH)
    return 0.5 * float((1 - torch.cosine_similarity(prompt.double()[0], aim, dim=-1)).mean())


def test_gradients_match_differences(bert_source: str) -> None:
    nlp = pipeline(bert_source, **TEACHER, embedding_dropout=0.0)
    module = module_of(nlp).double()
    doc = known(nlp, target=1)
    states, _, _ = run(nlp, [doc])
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(0)).double()
    _, _, gradients = run(nlp, [doc], weights)
    found = gradients()

    def loss() -> float:
        states, prompt, _ = run(nlp, [doc])
        return float((states * weights).sum()) + distance(prompt, doc)

    parameters = dict(module.named_parameters())
    last = max(name for name in parameters if ".1." in name and name.endswith("weight"))
    assert last.startswith("encoder.")
    for name in ("prompt.up.weight", "prompt.down.bias", "tags.weight", "to_knowledge.bias", last):
        values = parameters[name].data
        direction = torch.randn(values.shape, generator=torch.Generator().manual_seed(1)).double()
        if name == "tags.weight":
            direction[0] = 0
        step = 1e-5
        values += step * direction
        above = loss()
        values -= 2 * step * direction
        below = loss()
        values += step * direction
        expected = float((found[name] * direction).sum())
        assert (above - below) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-6), name
        assert abs(expected) > 1e-6, name


def test_gradients_reach_what_learns_and_nothing_frozen(bert_source: str) -> None:
    for frozen in (True, False):
        nlp = pipeline(bert_source, **TEACHER, freeze_word_embeddings=frozen)
        states, _, _ = run(nlp, [known(nlp)])
        _, _, gradients = run(nlp, [known(nlp, target=1)], torch.randn(states.shape))
        moved = {name for name, gradient in gradients().items() if gradient.any()}
        assert {"prompt.up.weight", "prompt.down.weight", "tags.weight", "to_knowledge.weight"} <= (
            moved
        )
        words = [n for n in dict(module_of(nlp).named_parameters()) if "word_embeddings" in n]
        assert len(words) == 1
        assert (words[0] in moved) is not frozen
        assert len([name for name in moved if name.startswith("encoder.")]) > 20


def test_regression_pulls_the_prompt_towards_the_knowledge(bert_source: str) -> None:
    nlp = pipeline(bert_source, **STUDENT, embedding_dropout=0.0)
    docs = [known(nlp, target=1), known(nlp, "Is Lagos colder?", target=2)]
    optimizer = Adam(0.02)

    def total() -> float:
        return sum(distance(run(nlp, [doc])[1], doc) for doc in docs)

    before = total()
    for _ in range(25):
        run(nlp, docs)[2]()
        nlp.get_pipe("transformer").model.finish_update(optimizer)  # type: ignore[attr-defined]
    assert total() < 0.25 * before


def test_docs_without_a_target_have_no_part_in_the_regression(bert_source: str) -> None:
    nlp = pipeline(bert_source, **STUDENT, embedding_dropout=0.0)
    alone = run(nlp, [known(nlp, target=1)])[2]()
    others = [known(nlp, "Is Lagos colder?"), known(nlp, ""), known(nlp, target=1)]
    beside = run(nlp, others)[2]()
    for name in ("prompt.up.weight", "to_knowledge.weight"):
        torch.testing.assert_close(alone[name], beside[name], rtol=1e-4, atol=1e-6)
    # What was cut from a Doc keeps the whole's target, which says nothing of the part.
    parts = [known(nlp, target=1)[i : i + 3].as_doc(copy_user_data=True) for i in (0, 1)]
    assert all(PROMPT_TARGET_KEY in part.user_data for part in parts)
    nothing = run(nlp, [*others[:2], *parts])[2]()
    assert not any(gradient.any() for gradient in nothing.values())


def test_each_doc_meets_its_own_target(bert_source: str) -> None:
    """Windows are sorted by length on their way through the encoder; targets must follow."""
    nlp = pipeline(bert_source, **STUDENT, embedding_dropout=0.0)
    texts = ["x", "Anna Berg sings in Oslo, then in Lagos, and again in Oslo.", "Is Oslo colder?"]
    docs = [known(nlp, text, target=i) for i, text in enumerate(texts)]
    singles = [run(nlp, [doc])[2]() for doc in docs]
    together = run(nlp, docs)[2]()
    for name in ("prompt.up.weight", "to_knowledge.weight"):
        mean = torch.stack([gradients[name] for gradients in singles]).mean(0)
        torch.testing.assert_close(together[name], mean, rtol=1e-4, atol=1e-6)


def test_target_of_another_prompt_length(bert_source: str) -> None:
    nlp = pipeline(bert_source, **{**STUDENT, "prompt_length": 5})
    with pytest.raises(MMCoTError, match=r"\[E503\].*holds 32 numbers.*--prompt-length 5"):
        nlp.get_pipe("transformer").model.begin_update([known(nlp, target=1)])  # type: ignore


# Stock components ----------------------------------------------------------------------------

LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "grad_factor": 1.0,
    "pooling": {"@layers": "reduce_first.v1"},
}
NER = {
    "@architectures": "spacy.TransitionBasedParser.v2",
    "state_type": "ner",
    "extra_state_tokens": False,
    "hidden_width": 16,
    "maxout_pieces": 2,
    "use_upper": False,
    "tok2vec": LISTENER,
}
TAGGER = {"@architectures": "spacy.Tagger.v2", "tok2vec": LISTENER}

TRAIN = [
    (
        "Anna Berg sings in Oslo tonight .",
        {
            "entities": [(0, 9, "PER"), (19, 23, "LOC")],
            "tags": ["NOUN", "NOUN", "VERB", "ADP", "NOUN", "ADV", "PUNCT"],
        },
    ),
    (
        "Is Oslo colder than Lagos ?",
        {
            "entities": [(3, 7, "LOC"), (20, 25, "LOC")],
            "tags": ["AUX", "NOUN", "ADJ", "ADP", "NOUN", "PUNCT"],
        },
    ),
]


def stock_pipeline(source: str, data: list[tuple[str, dict]], **settings: Any) -> Language:
    """Our encoder under spaCy's own tagger and ner, trained until they know the data by heart."""
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    architecture = {"@architectures": "spacy_mmcot.PromptedTransformer.v1", "source": source}
    settings = {**architecture, **settings, "embedding_dropout": 0.0}
    nlp.add_pipe("transformer", config={"model": settings})
    nlp.add_pipe("tagger", config={"model": TAGGER})
    nlp.add_pipe("ner", config={"model": NER})

    def examples() -> list[Example]:
        return [Example.from_dict(nlp.make_doc(text), labels) for text, labels in data]

    optimizer = nlp.initialize(examples)
    optimizer.learn_rate = 0.02
    for _ in range(100):
        losses: dict[str, float] = {}
        nlp.update(examples(), sgd=optimizer, losses=losses)
        if losses["ner"] + losses["tagger"] < 0.1:
            break
    return nlp


def entities(doc: Doc) -> list[tuple[int, int, str]]:
    return [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]


def test_stock_components_learn_and_predict(bert_source: str) -> None:
    nlp = stock_pipeline(bert_source, TRAIN, **STUDENT)
    texts = [text for text, _ in TRAIN]
    docs = list(nlp.pipe([texts[0], "", texts[1], " "]))
    for doc, (_, gold) in zip((docs[0], docs[2]), TRAIN, strict=True):
        assert entities(doc) == gold["entities"]
        assert [token.tag_ for token in doc] == gold["tags"]
    twin = spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert [entities(twin(text)) for text in texts] == [gold["entities"] for _, gold in TRAIN]


def test_a_long_docs_entities_are_neither_lost_nor_doubled(bert_source: str) -> None:
    text, labels = TRAIN[0]
    shift = len(text) + 1
    n = 9
    gold = {
        "entities": [
            (start + i * shift, end + i * shift, label)
            for i in range(n)
            for start, end, label in labels["entities"]
        ],
        "tags": labels["tags"] * n,
    }
    long = " ".join([text] * n)
    nlp = stock_pipeline(bert_source, [(long, gold)], prompt="none", max_length=20, stride=8)
    doc = nlp(long)
    assert len(doc._.trf_data.wordpieces) > 4
    assert entities(doc) == gold["entities"]


def test_pretrained_weights_learn_at_their_own_rate(bert_source: str) -> None:
    moved = {}
    for scale in (0.0, 0.1, 1.0):
        nlp = pipeline(bert_source, **TEACHER, encoder_lr_scale=scale, embedding_dropout=0.0)
        before = {n: p.detach().clone() for n, p in module_of(nlp).named_parameters()}
        states, _, _ = run(nlp, [known(nlp)])
        run(nlp, [known(nlp, target=1)], torch.ones(states.shape))[2]()
        nlp.get_pipe("transformer").model.finish_update(Adam(0.01))  # type: ignore[attr-defined]
        after = dict(module_of(nlp).named_parameters())
        name = "encoder.encoder.layer.0.attention.self.query.weight"
        moved[scale] = (after[name] - before[name]).abs().max().item()
        assert (after["prompt.up.weight"] - before["prompt.up.weight"]).abs().max() > 0.005
    assert moved[0.0] == 0.0
    assert moved[0.1] == pytest.approx(0.1 * moved[1.0], rel=0.01)


@pytest.mark.parametrize("loaded", [False, True])
def test_dropout_is_on_in_every_update_and_off_in_every_prediction(
    bert_source: str, tmp_path: Path, loaded: bool
) -> None:
    nlp = pipeline(bert_source, embedding_dropout=0.5)
    if loaded:
        nlp.to_disk(tmp_path)
        nlp = spacy.load(tmp_path)
    model = nlp.get_pipe("transformer").model  # type: ignore[attr-defined]
    docs = [nlp.make_doc("Anna Berg sings in Oslo tonight.")]

    def states(is_train: bool) -> NDArray:
        return model(docs, is_train)[0].model_output.last_hidden_state.numpy()

    for _ in range(2):
        assert not numpy.allclose(states(True), states(True), atol=1e-2)
        assert numpy.array_equal(states(False), states(False))
