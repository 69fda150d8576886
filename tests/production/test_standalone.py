"""A pipeline that stands alone finds what the one that it was made of finds."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import tiny
import torch
import toy
import toy_rel
from click.testing import Result
from spacy.language import Language
from spacy.tokens import Doc

from benchmarks.pipe import make_session_contender
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.encoder_bridge import find_torch_encoder

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("onnx", reason="needs the extra `onnx`")

from spacy_mmcot.production.export import build_wheel, export_standalone
from spacy_mmcot.standalone import encoder
from spacy_mmcot.standalone.encoder import LayerSession

LONG = "Anna met Ben in Oslo , and then " * 30
TEXTS = [*tiny.SENTENCES, "", "Oslo", " \n ", LONG, "x" * 3_000, "\N{GRINNING FACE} \u200d \ufe0f"]


@pytest.fixture(scope="module")
def alone(related: Language) -> Language:
    return export_standalone(related, "fp32")


def describe(doc: Doc) -> list[Any]:
    """All that is found in a Doc, with scores."""
    ents = [(e.start_char, e.end_char, e.label_, e._.mmcot_score) for e in doc.ents]
    relations = [(h.text, t.text, label, score) for h, t, label, score in doc._.mmcot_rel]
    return [ents, relations, doc._.mmcot_confidence, doc._.mmcot_weakest]


def flatten(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [part for one in value for part in flatten(one)]
    return [value]


def assert_same(found: Any, expected: Any, tolerance: float = 1e-3) -> None:
    assert flatten(found) == pytest.approx(flatten(expected), abs=tolerance)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {}),
        ("bert", {"prompt": "conditional", "prompt_length": 3, "max_length": 40, "stride": 8}),
        ("bert", {"layers": 1}),
        ("roberta", {"prompt": "static"}),
        ("electra", {"max_length": 20, "stride": 4}),
    ],
)
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_vectors_are_those_of_torch(
    tiny_source: Callable[[str], str], family: str, settings: dict[str, object], pooling: str
) -> None:
    nlp = tiny.pipeline(tiny_source(family), **settings)
    listener = {**toy.LISTENER, "pooling": {"@layers": f"reduce_{pooling}.v1"}}
    nlp.add_pipe("mmcot_ner", config=toy.settings(tok2vec=listener))
    nlp.initialize(lambda: toy.examples(nlp))
    module = find_torch_encoder(nlp.get_pipe("transformer"))
    assert module is not None
    if module.cases is not None:  # zero before training
        torch.nn.init.normal_(module.cases.weight[1:])
    model = nlp.get_pipe("mmcot_ner").model.get_ref("tok2vec")  # type: ignore[attr-defined]
    runtime = export_standalone(nlp, "fp32")
    for text in TEXTS:
        doc, other = nlp(text), runtime(text)
        assert len(other.tensor) == len(doc)
        if len(doc):
            (own,) = model.predict([doc])
            numpy.testing.assert_allclose(other.tensor, own, atol=1e-4)
            assert describe(other)[2] == pytest.approx(doc._.mmcot_confidence, abs=1e-4)


def test_it_finds_the_same(related: Language, alone: Language) -> None:
    for texts in (toy_rel.texts(), TEXTS):
        for own, other in zip(related.pipe(texts), alone.pipe(texts), strict=True):
            assert_same(describe(other), describe(own))


def test_a_cascade_stays_behind(related: Language) -> None:
    nlp = spacy.util.load_model_from_config(related.config).from_bytes(related.to_bytes())
    nlp.add_pipe("mmcot_cascade", config={"scheme": "nowhere.yml"})
    with pytest.warns(UserWarning, match=r"W700.*mmcot_cascade"):
        runtime = export_standalone(nlp, "fp32")
    assert runtime.component_names == related.component_names
    assert_same(describe(runtime(tiny.SENTENCES[0])), describe(related(tiny.SENTENCES[0])))


def test_int8_finds_what_training_showed(related: Language) -> None:
    rounded = list(export_standalone(related, "int8").pipe(toy_rel.texts()))
    own = list(related.pipe(toy_rel.texts()))
    same = sum(toy.found([a]) == toy.found([b]) for a, b in zip(own, rounded, strict=True))
    assert same > 0.9 * len(own)
    assert [describe(doc) for doc in own] != [describe(doc) for doc in rounded]


def test_temperature_threshold_legal_map_and_kept_annotation(related: Language) -> None:
    bytes_before = related.to_bytes()
    ner, rel = related.get_pipe("mmcot_ner"), related.get_pipe("mmcot_rel")
    own = dict(ner.cfg), dict(rel.cfg)  # type: ignore[attr-defined]
    try:
        ner.cfg["temperature"] = 2.5  # type: ignore[attr-defined]
        rel.cfg.update({"threshold": 0.05, "max_distance": 2, "legal": toy_rel.LEGAL})  # type: ignore
        runtime = export_standalone(related, "fp32")
        docs = zip(related.pipe(toy_rel.texts()), runtime.pipe(toy_rel.texts()), strict=True)
        for doc, other in docs:
            assert_same(describe(other), describe(doc))
    finally:
        ner.cfg, rel.cfg = own  # type: ignore[attr-defined]
    assert related.to_bytes() == bytes_before
    made = runtime.make_doc("Anna sings in Oslo")
    made.set_ents([made.char_span(0, 4, label="KEPT")])
    assert runtime(made).ents[0].label_ == "KEPT"


def test_a_batch_changes_nothing(alone: Language) -> None:
    together = [describe(doc) for doc in alone.pipe(TEXTS, batch_size=100)]
    for text, expected in zip(TEXTS, together, strict=True):
        assert_same(describe(alone(text)), expected, 1e-5)


def test_its_layers_can_be_timed_alone(
    related: Language, alone: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    own = LayerSession.map

    def count(self: Any, work: Any, lengths: Any, threads: int) -> Any:
        ran.append(sum(lengths))
        return own(self, work, lengths, threads)

    monkeypatch.setattr(LayerSession, "map", count)
    run = make_session_contender(alone, [TEXTS, TEXTS[:1]])
    assert run is not None
    recorded = ran.copy()
    run(0)
    run(1)
    assert ran == recorded * 2 and min(ran) > 0
    assert make_session_contender(related, [TEXTS]) is None


def test_it_is_an_ordinary_pipeline(related: Language, alone: Language, tmp_path: Path) -> None:
    expected = [describe(doc) for doc in alone.pipe(toy_rel.texts())]
    alone.to_disk(tmp_path / "alone")
    loaded = spacy.load(tmp_path / "alone")
    copies = [loaded, pickle.loads(pickle.dumps(alone))]
    copies.append(spacy.util.load_model_from_config(alone.config).from_bytes(alone.to_bytes()))
    for copy in copies:
        assert [describe(doc) for doc in copy.pipe(toy_rel.texts())] == expected
    assert_same([describe(d) for d in loaded.pipe(toy_rel.texts(), n_process=2)], expected, 1e-5)
    with loaded.select_pipes(disable=["mmcot_rel"]):
        assert not any(doc._.mmcot_rel for doc in loaded.pipe(toy_rel.texts()))
    strings = len(loaded.vocab.strings)
    with loaded.memory_zone():
        assert [describe(d)[0] for d in loaded.pipe(toy_rel.texts())] == [e[0] for e in expected]
    assert len(loaded.vocab.strings) == strings
    scores, own = (nlp.evaluate(toy_rel.examples(nlp)) for nlp in (loaded, related))
    assert scores["ents_f"] == pytest.approx(own["ents_f"]) and own["ents_f"] > 0.8
    assert loaded.pipe_labels["mmcot_ner"] == ["LOC", "PER"]
    requirements = " ".join(loaded.meta["requirements"])
    assert "torch" not in requirements and "onnxruntime" in requirements


def test_it_learns_nothing_more_and_needs_its_encoder(alone: Language) -> None:
    with pytest.raises(MMCoTError, match="E443"):
        alone.initialize(lambda: toy.examples(alone))
    with alone.select_pipes(disable=["transformer"]), pytest.raises(MMCoTError, match="E405"):
        alone("Anna in Oslo")


def test_hostile_data_is_no_pickle(alone: Language) -> None:
    pipe: Any = alone.get_pipe("mmcot_ner")
    pipe.arrays["evil"] = numpy.array([{"a": 1}], dtype=object)
    try:
        data = pipe.to_bytes()
    finally:
        del pipe.arrays["evil"]
    with pytest.raises(ValueError, match="allow_pickle=False"):
        pipe.from_bytes(data)


def test_what_cannot_stand_alone(
    tiny_source: Callable[[str], str], related: Language, alone: Language
) -> None:
    def refuse(nlp: Language, message: str) -> None:
        with pytest.raises(MMCoTError, match=message):
            export_standalone(nlp, "fp32")

    refuse(alone, "E780")
    refuse(toy.initialised(), "E780")
    reads = tiny.pipeline(tiny_source("bert"), knowledge_tags=True)
    refuse(reads, "E782.*knowledge")
    listens = tiny.pipeline(tiny_source("bert"))
    listens.add_pipe("tagger", config={"model": {"tok2vec": toy.LISTENER}})
    refuse(listens, "E782.*tagger reads the encoder")
    own = tiny.pipeline(tiny_source("bert"))
    own.add_pipe("mmcot_ner", config=toy.settings())
    own.initialize(lambda: toy.examples(own))
    refuse(own, "E782.*mmcot_ner does not listen")


def test_a_student_without_a_transformer(toy_bert: Path) -> None:
    nlp = spacy.blank("en")
    embed: dict[str, Any] = {"@architectures": "spacy_mmcot.PieceEmbed.v1", "source": str(toy_bert)}
    embed |= {"width": 16, "attrs": ["NORM", "SHAPE"], "rows": [200, 100], "table_width": 8}
    encode: dict[str, Any] = {"@architectures": "spacy.MaxoutWindowEncoder.v2", "width": 16}
    encode |= {"depth": 2, "window_size": 1, "maxout_pieces": 2}
    model = {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}
    nlp.add_pipe("tok2vec", config={"model": model})
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 16, "upstream": "*"}
    nlp.add_pipe("mmcot_ner", config=toy.settings(tok2vec=listener))
    nlp.add_pipe("mmcot_rel", config=toy_rel.settings(tok2vec=listener))
    data = toy_rel.examples(nlp)
    toy.fix_random_seed(0)
    nlp.initialize(lambda: data)
    toy.fit(nlp, data, steps=40)
    runtime = export_standalone(nlp, "int8")
    copy = spacy.util.load_model_from_config(runtime.config).from_bytes(runtime.to_bytes())
    found = 0
    for texts in (toy_rel.texts(), TEXTS):
        all_docs = (nlp.pipe(texts), runtime.pipe(texts), copy.pipe(texts))
        for own, *others in zip(*all_docs, strict=True):
            for other in others:
                assert_same(describe(other), describe(own))
            found += len(own.ents)
    assert found > 20


BLOCKED = ("torch", "transformers", "spacy_mmcot", "spacy_transformers", "safetensors", "seqeval")
PROGRAM = """
import importlib.abc, importlib.metadata, json, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
sys.path.insert(0, {code!r})
# The entry points of packages that are not there in a bare environment.
own = importlib.metadata.entry_points
def entry_points(**wanted):
    found = own(**wanted)
    if hasattr(found, "groups"):
        return {{group: keep(found.select(group=group)) for group in found.groups}}
    return keep(found)
def keep(points):
    bare = [point for point in points if point.module.partition(".")[0] not in {blocked}]
    return importlib.metadata.EntryPoints(bare)
importlib.metadata.entry_points = entry_points
import spacy

nlp = spacy.load({name!r})
texts = json.load(sys.stdin)
found = []
for doc in nlp.pipe(texts):
    ents = [(e.start_char, e.end_char, e.label_, e._.mmcot_score) for e in doc.ents]
    relations = [(h.text, t.text, label, score) for h, t, label, score in doc._.mmcot_rel]
    found.append([ents, relations, doc._.mmcot_confidence, doc._.mmcot_weakest])
import {name}
with {name}.worker.PipelineWorker(nlp, lambda doc: len(doc)) as worker:
    tokens = worker(texts[0])
loaded = [name for name in sys.modules if name.partition(".")[0] in {blocked}]
print(json.dumps([found, tokens, loaded]))
"""


@pytest.fixture(scope="module")
def wheel(alone: Language, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    alone.to_disk(folder / "alone")
    built = build_wheel(folder / "alone", "standing")
    assert built.parent == folder / "alone" / "dist"
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "code")
    return folder / "code"


def test_a_wheel_needs_none_of_the_libraries(related: Language, wheel: Path) -> None:
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    lines = metadata.read_text("utf-8").splitlines()
    required = [line.split()[1] for line in lines if line.startswith("Requires-Dist")]
    names = {re.split("[<>=,]", name)[0] for name in required}
    assert names == {"spacy", "numpy", "onnxruntime", "tokenizers"}
    program = PROGRAM.format(blocked=BLOCKED, code=str(wheel), name="en_standing")
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(toy_rel.texts()),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found, tokens, loaded = json.loads(done.stdout.splitlines()[-1])
    assert (tokens, loaded) == (len(related.make_doc(toy_rel.texts()[0])), [])
    assert_same(found, [describe(doc) for doc in related.pipe(toy_rel.texts())])


def test_a_wheel_lives_beside_the_package(
    related: Language, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(wheel))
    nlp = spacy.load("en_standing")
    for own, other in zip(related.pipe(TEXTS), nlp.pipe(TEXTS), strict=True):
        assert_same(describe(other), describe(own))


def test_the_command(command: Callable[..., Result], related: Language, tmp_path: Path) -> None:
    related.to_disk(tmp_path / "model")
    out = tmp_path / "out"
    done = command("export", tmp_path / "model", out, "--standalone", "--wheel", "--name", "mine")
    assert done.exit_code == 0, done.output
    (built,) = out.glob("dist/*.whl")
    assert built.name.startswith("en_mine-")
    assert spacy.load(out)("Anna in Oslo").has_annotation("ENT_IOB")
    assert "[E811]" in command("export", tmp_path / "model", out, "--wheel").stderr
    assert "[E811]" in command("export", tmp_path / "model", out, "--name", "x").stderr
    for name in ("a-b", "é"):  # as with init
        bad = command("export", tmp_path / "model", out, "--standalone", "--wheel", "--name", name)
        assert "[E409]" in bad.stderr


@pytest.mark.parametrize("few", [0, 100])
def test_means_of_spans(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one or by running sums: the same, and 0 for an empty span."""
    monkeypatch.setattr(encoder, "_FEW", few)
    states = numpy.random.default_rng(1).normal(size=(9, 4)).astype("float32")
    starts, ends = numpy.array([[0, 9], [3, 4], [5, 5], [2, 7], [9, 9]]).T
    means = encoder.average_spans(states, starts, ends)
    spans = zip(starts, ends, strict=True)
    expected = [states[s:e].mean(axis=0) if e > s else [0.0] * 4 for s, e in spans]
    numpy.testing.assert_allclose(means, expected, atol=1e-6)
    assert means.dtype == numpy.float32
