"""Token vectors from an encoder's word embeddings, and other matrix products for thinc's layers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
import toy
from spacy.language import Language
from spacy.vocab import Vocab
from thinc.api import Adam, CupyOps, Model, NumpyOps
from tiny import SENTENCES

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.bridge import torch_shim
from spacy_mmcot.model.cnn import (
    MAX_PIECES,
    PieceEmbed,
    PieceVectors,
    compute_principal_rows,
    make_piece_vectors,
)
from spacy_mmcot.model.sources import load_pretrained
from spacy_mmcot.standalone import NumpyProducts

TEXT = "Annas Berg sings in Oslonian towns"


@pytest.fixture
def vectors(bert_source: str) -> Model:
    model = make_piece_vectors(bert_source, table_width=12, width=6)
    model.initialize()
    return model


def make(text: str) -> Any:
    return spacy.blank("en").make_doc(text)


def test_a_token_is_the_mean_of_its_pieces(vectors: Model) -> None:
    module: PieceVectors = torch_shim(vectors).module
    doc = make(TEXT)
    found = vectors.predict([doc])
    assert found.dataXd.shape == (len(doc), 6) and found.lengths.tolist() == [len(doc)]
    pieces = module.pieces.split_doc(doc, MAX_PIECES)
    assert max(map(len, pieces)) > 1
    for row, ids in zip(found.dataXd, pieces, strict=True):
        with torch.no_grad():
            expected = module.linear(module.table[list(ids)].float().mean(0))
        numpy.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


def test_batches_and_docs_without_tokens(vectors: Model) -> None:
    docs = [make(TEXT), make(""), make("Oslo"), make("x" * 500)]
    together = vectors.predict(docs)
    assert together.lengths.tolist() == [len(doc) for doc in docs]
    alone = [vectors.predict([doc]).dataXd for doc in docs]
    numpy.testing.assert_allclose(together.dataXd, numpy.concatenate(alone), atol=1e-6)
    assert vectors.predict([]).dataXd.shape == (0, 6)


def test_the_table_stays_and_the_layer_learns(vectors: Model) -> None:
    module: PieceVectors = torch_shim(vectors).module
    table, weights = module.table.clone(), module.linear.weight.detach().clone()
    found, backprop = vectors.begin_update([make(TEXT)])
    gradient = found.__class__(numpy.ones_like(found.dataXd), found.lengths)
    backprop(gradient)
    expected = module.linear.weight.grad.clone()
    module.linear.weight.grad.zero_()
    module.linear.bias.grad.zero_()
    vectors.begin_update([make(TEXT)])[1](gradient)
    assert torch.equal(module.linear.weight.grad, expected)
    vectors.finish_update(Adam(0.1))
    assert torch.equal(module.table, table)
    assert not torch.equal(module.linear.weight, weights)


def test_principal_rows_keep_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(10, 3, generator=generator)).Q
    table = torch.randn(50, 3, generator=generator) @ basis.T + 5
    rows = compute_principal_rows(table, 3)
    assert rows.shape == (50, 3) and rows.std().item() == pytest.approx(1)
    before, after = (torch.nn.functional.pdist(each) for each in (table, rows))
    scale = (after[0] / before[0]).item()
    torch.testing.assert_close(after, before * scale, rtol=1e-3, atol=1e-3)
    first, last = rows[:, 0].var(), rows[:, 2].var()
    assert first > last
    assert compute_principal_rows(table, 99).shape == (50, 10)


def test_the_rows_are_the_encoders(bert_source: str, vectors: Model) -> None:
    """Words that the encoder puts close to each other are close in the table."""
    model = make_piece_vectors(bert_source, table_width=16, width=6)
    model.initialize()
    table = torch_shim(model).module.table.float()
    _, encoder = load_pretrained(bert_source)
    words = encoder.get_input_embeddings().weight.detach()
    before, after = torch.cdist(words, words).flatten(), torch.cdist(table, table).flatten()
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.999


def cnn(source: str, **changes: Any) -> Language:
    nlp = spacy.blank("en")
    embed = {
        "@architectures": "spacy_mmcot.PieceEmbed.v1",
        "width": 8,
        "attrs": ["NORM", "SHAPE"],
        "rows": [50, 50],
        "source": source,
        "table_width": 12,
        **changes,
    }
    encode = {
        **{"@architectures": "spacy.MaxoutWindowEncoder.v2", "width": 8, "depth": 1},
        **{"window_size": 1, "maxout_pieces": 2},
    }
    model = {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}
    nlp.add_pipe("tok2vec", config={"model": model})
    return nlp


def test_round_trip_after_the_source_is_deleted(bert_source: str, tmp_path: Path) -> None:
    folder = shutil.copytree(bert_source, tmp_path / "source")
    nlp = cnn(str(folder))
    nlp.initialize()
    before = [doc.tensor for doc in nlp.pipe([*SENTENCES, "", " "])]
    nlp.to_disk(tmp_path / "model")
    shutil.rmtree(folder)
    loaded = spacy.load(tmp_path / "model")
    after = [doc.tensor for doc in loaded.pipe([*SENTENCES, "", " "])]
    for left, right in zip(before, after, strict=True):
        numpy.testing.assert_array_equal(left, right)


def test_what_pieces_say_reaches_the_vectors(bert_source: str) -> None:
    """Two words of one shape, whose hash tables are switched off, differ by their pieces."""
    embed = PieceEmbed(8, ["SHAPE"], [50], bert_source, table_width=12)
    docs = [spacy.tokens.Doc(Vocab(), words=[word]) for word in ("Oslo", "Anna", "Oslo")]
    embed.initialize(X=docs)
    oslo, anna, again = embed.predict(docs)
    assert abs(oslo - anna).max() > 1e-3
    numpy.testing.assert_array_equal(oslo, again)


def test_rows_for_other_attrs(bert_source: str) -> None:
    with pytest.raises(MMCoTError, match=r"\[E409\] rows of spacy_mmcot.PieceEmbed.v1 is \[50\]"):
        cnn(bert_source, rows=[50])


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match=r"\[E402\]"):
        cnn(str(tmp_path / "absent")).initialize()


CALLBACK = {"@callbacks": "spacy_mmcot.NumpyProducts.v1"}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Language, Language]:
    """A pipeline, and what is loaded from its files once its config names the callback."""
    nlp = toy.initialised()
    toy.fit(nlp, toy.examples(nlp), steps=10)
    nlp.config["nlp"]["after_pipeline_creation"] = CALLBACK
    folder: Path = tmp_path_factory.mktemp("products")
    nlp.to_disk(folder)
    return nlp, spacy.load(folder)


@pytest.mark.parametrize("trans1", [False, True])
@pytest.mark.parametrize("trans2", [False, True])
def test_products_are_those_of_thinc(trans1: bool, trans2: bool) -> None:
    random = numpy.random.default_rng(0)
    x = random.normal(size=(7, 5) if trans1 else (5, 7)).astype("float32")
    y = random.normal(size=(3, 7) if trans2 else (7, 3)).astype("float32")
    out = numpy.zeros((5, 3), dtype="float32")
    ours = NumpyProducts().gemm(x, y, out=out, trans1=trans1, trans2=trans2)
    thincs = NumpyOps().gemm(x, y, trans1=trans1, trans2=trans2)
    assert ours is out
    numpy.testing.assert_allclose(ours, thincs, rtol=1e-5, atol=1e-6)
    numpy.testing.assert_array_equal(ours, NumpyProducts().gemm(x, y, None, trans1, trans2))


def test_a_loaded_pipeline_multiplies_by_numpy(changed: tuple[Language, Language]) -> None:
    before, after = (list(nlp.get_pipe("mmcot_ner").model.walk()) for nlp in changed)
    assert all(type(node.ops) is NumpyOps for node in before)
    assert all(type(node.ops) is NumpyProducts for node in after)


def test_predictions_stay(changed: tuple[Language, Language]) -> None:
    before, after = (list(nlp.pipe(toy.texts())) for nlp in changed)
    assert toy.found(before) == toy.found(after)
    for left, right in zip(before, after, strict=True):
        assert toy.scores(left) == pytest.approx(toy.scores(right), abs=1e-4)


def test_it_learns(changed: tuple[Language, Language]) -> None:
    _, nlp = changed
    data = toy.examples(nlp)
    before = toy.loss(nlp, data)
    toy.fit(nlp, data, steps=15)
    assert toy.loss(nlp, data) < before / 2


def test_a_backend_of_another_kind_is_left_alone() -> None:
    nlp = toy.pipeline()
    other = CupyOps()
    nodes = list(nlp.get_pipe("mmcot_ner").model.walk())
    nodes[0].ops = other
    spacy.registry.get("callbacks", "spacy_mmcot.NumpyProducts.v1")()(nlp)
    assert nodes[0].ops is other
    assert all(type(node.ops) is NumpyProducts for node in nodes[1:])
