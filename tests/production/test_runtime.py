"""An exported pipeline finds what the one that it was exported from finds."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
import spacy
import tiny
import torch
import toy
from pictures.odd_pictures import encoded, noise
from spacy.language import Language

from spacy_mmcot.corpus.extensions import set_image
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.sources import load_pretrained

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("onnx", reason="needs the extra `onnx`")

from spacy_mmcot.production.export import export

LONG = "Anna met Ben in Oslo , and then " * 30
TEXTS = [*tiny.SENTENCES, "", "Oslo", " \n ", LONG]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Language:
    """A pipeline that knows the toy corpus by heart."""
    source = toy.write_bert(tmp_path_factory.mktemp("bert") / "model")
    nlp = toy.transformer_pipeline(source, prompt="conditional", prompt_length=2)
    data = toy.examples(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=60, rate=0.005)
    assert toy.found(nlp.pipe(toy.texts())) == toy.gold()
    return nlp


def states(nlp: Language, texts: list[str]) -> list[numpy.ndarray]:
    docs = nlp.pipe(texts)
    return [doc._.trf_data.tensors[0] for doc in docs if len(doc)]


@pytest.mark.parametrize(
    ("family", "settings"),
    [("bert", {"knowledge_tags": True}), ("roberta", {"prompt": "static"}), ("electra", {})],
)
def test_fp32_states_are_those_of_torch(
    tiny_source: Callable[[str], str], family: str, settings: dict[str, object]
) -> None:
    nlp = tiny.pipeline(tiny_source(family), **settings)
    pairs = list(zip(states(nlp, TEXTS), states(export(nlp, "fp32"), TEXTS), strict=True))
    assert len(pairs) == len(TEXTS) - 1
    assert pairs[0][0].std() > 0.1
    for own, runtime in pairs:
        numpy.testing.assert_allclose(runtime, own, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "gelu_fast"])
def test_other_activations(bert_source: str, tmp_path: Path, activation: str) -> None:
    tokenizer, encoder = load_pretrained(bert_source)
    encoder.config.hidden_act = activation
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    nlp = tiny.pipeline(str(tmp_path))
    own = states(nlp, tiny.SENTENCES)
    exact, rounded = (states(export(nlp, p), tiny.SENTENCES) for p in ("fp32", "int8"))
    for torch_states, fp32, int8 in zip(own, exact, rounded, strict=True):
        # Of FastGelu's tanh.
        numpy.testing.assert_allclose(fp32, torch_states, atol=1e-3)
        assert numpy.abs(int8 - torch_states).mean() < 0.05


def test_large_columns_leave_int8_its_precision(bert_source: str) -> None:
    """As in pretrained encoders, whose norms return a few columns far larger than the others."""
    nlp = tiny.pipeline(bert_source)
    with torch.no_grad():
        for layer in tiny.module_of(nlp).encoder.encoder.layer:
            attention = layer.attention.self
            for part in (layer.attention.output, layer.output):
                part.LayerNorm.weight[3] *= 50
            for linear in (*attention.children(), layer.intermediate.dense):
                if isinstance(linear, torch.nn.Linear):
                    linear.weight[:, 3] /= 50
    own, rounded = (
        numpy.concatenate(states(pipe, tiny.SENTENCES), axis=None).reshape(-1, tiny.WIDTH)
        for pipe in (nlp, export(nlp, "int8"))
    )
    others = numpy.arange(tiny.WIDTH) != 3
    assert numpy.abs(rounded - own)[:, others].mean() < 0.01 * numpy.abs(own)[:, others].mean()


def test_an_unknown_activation_is_named(bert_source: str) -> None:
    nlp = tiny.pipeline(bert_source)
    tiny.module_of(nlp).encoder.config.hidden_act = "silu"
    with pytest.raises(MMCoTError, match=r"E441.*'silu'.*gelu"):
        export(nlp, "fp32")


def test_fp32_finds_the_same(trained: Language) -> None:
    runtime = export(trained, "fp32")
    for own, other in zip(trained.pipe(toy.texts()), runtime.pipe(toy.texts()), strict=True):
        assert toy.found([other]) == toy.found([own])
        assert toy.scores(other) == pytest.approx(toy.scores(own), abs=1e-4)


def test_int8_finds_what_training_showed(trained: Language) -> None:
    runtime = export(trained, "int8")
    assert toy.found(runtime.pipe(toy.texts())) == toy.gold()
    rounded = [toy.scores(doc) for doc in runtime.pipe(toy.texts())]
    assert rounded != [toy.scores(doc) for doc in trained.pipe(toy.texts())]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_batch_changes_nothing(trained: Language, precision: str) -> None:
    runtime = export(trained, precision)  # type: ignore[arg-type]
    for alone, together in zip(map(runtime, TEXTS), runtime.pipe(TEXTS), strict=True):
        assert toy.found([alone]) == toy.found([together])
        assert toy.scores(alone) == pytest.approx(toy.scores(together), abs=1e-4)


def test_threads_change_nothing(trained: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        results.append(states(export(trained, "int8"), TEXTS * 5))
    for expected, found in zip(*results, strict=True):
        numpy.testing.assert_array_equal(found, expected)


def test_requests_share_a_pipeline(trained: Language) -> None:
    runtime = export(trained, "int8")
    expected = [toy.found([runtime(text)]) for text in toy.texts()]
    with ThreadPoolExecutor(4) as requests:
        for _ in range(5):
            assert [toy.found([doc]) for doc in requests.map(runtime, toy.texts())] == expected


def test_disk_bytes_and_pickle_keep_it(trained: Language, tmp_path: Path) -> None:
    runtime = export(trained, "int8")
    runtime.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert "onnxruntime" in " ".join(loaded.meta["requirements"])
    blank = spacy.util.load_model_from_config(runtime.config)
    copies = [loaded, blank.from_bytes(runtime.to_bytes()), pickle.loads(pickle.dumps(runtime))]
    expected = [toy.scores(doc) for doc in runtime.pipe(toy.texts())]
    assert any(expected)
    for copy in copies:
        assert [toy.scores(doc) for doc in copy.pipe(toy.texts())] == expected


def test_processes_find_the_same(trained: Language) -> None:
    runtime = export(trained, "int8")
    expected = toy.found(runtime.pipe(toy.texts()))  # a session of this process has begun
    assert toy.found(runtime.pipe(toy.texts(), n_process=2, batch_size=3)) == expected


def test_pictures_are_seen(tiny_source: Callable[[str], str]) -> None:
    nlp = tiny.pipeline(tiny_source("bert"), vision=tiny.VISION)
    runtime = export(nlp, "fp32")

    def read(pipeline: Language, seed: int | None) -> numpy.ndarray:
        doc = pipeline.make_doc(tiny.SENTENCES[0])
        if seed is not None:
            set_image(doc, encoded(noise(30, seed), "PNG"))
        return pipeline(doc)._.trf_data.tensors[0]

    without, shown = read(nlp, None), read(nlp, 20)
    assert numpy.abs(shown - without).max() > 1e-3
    numpy.testing.assert_allclose(read(runtime, None), without, atol=1e-4)
    numpy.testing.assert_allclose(read(runtime, 20), shown, atol=1e-4)


def test_the_exported_pipeline_stays_as_it_is(trained: Language) -> None:
    before = trained.to_bytes()
    export(trained, "int8")
    assert trained.to_bytes() == before


def test_it_learns_nothing_more(trained: Language) -> None:
    runtime = export(trained, "fp32")
    with pytest.raises(MMCoTError, match="E443"):
        runtime.update(toy.examples(runtime))
    with pytest.raises(MMCoTError, match="E443"):
        runtime.initialize(lambda: toy.examples(runtime))


def test_what_cannot_be_exported(tiny_source: Callable[[str], str], trained: Language) -> None:
    with pytest.raises(MMCoTError, match=r"E440.*'deberta-v2'.*bert"):
        export(tiny.pipeline(tiny_source("deberta-v2")), "fp32")
    with pytest.raises(MMCoTError, match=r"E780.*mmcot_ner"):
        export(toy.initialised(), "fp32")
    with pytest.raises(MMCoTError, match="E780"):
        export(export(trained, "fp32"), "int8")


def test_without_onnxruntime_the_error_says_so(
    trained: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = export(trained, "fp32")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MMCoTError, match=r"E442.*spacy-mmcot\[onnx\]"):
        runtime("Anna")
