"""teach: soft labels and prompt targets on a corpus, its gold labels left as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy
import pytest
import spacy
import toy
from click.testing import Result
from spacy.tokens import Doc, DocBin

from spacy_mmcot.distillation.soft_labels import get_soft_labels, get_soft_tags
from spacy_mmcot.production.engines import WorkFactory, choose_engine
from spacy_mmcot.production.tables import Chunk
from spacy_mmcot.production.teaching import TeachRequest, teach_files
from spacy_mmcot.types import ID_KEY, KNOWLEDGE_KEY, PROMPT_TARGET_KEY

Command = Callable[..., Result]
Fails = Callable[..., str]


def read(path: Path) -> list[Doc]:
    return list(DocBin().from_disk(path).get_docs(spacy.blank("en").vocab))


def test_labelled_and_unlabelled_docs_are_taught(
    command: Command, model: Path, toy_data: Path, bare_data: Path, tmp_path: Path
) -> None:
    taught = tmp_path / "new" / "taught.spacy"
    result = command("teach", model, toy_data, bare_data, "--output", taught)
    assert result.exit_code == 0, result.output
    n = len(toy.texts())
    assert f"{2 * n} docs taught ({n} of them unlabelled), 0 prompt targets" in result.output
    docs = read(taught)
    sources = [*read(toy_data), *read(bare_data)]
    teacher = spacy.load(model)
    component = teacher.get_pipe("mmcot_ner")
    for doc, source in zip(docs, sources, strict=True):
        assert doc.text == source.text
        assert toy.found([doc]) == toy.found([source])
        assert doc.has_annotation("ENT_IOB") == source.has_annotation("ENT_IOB")
        assert get_soft_tags(doc) == component.tags
        expected = component.predict_marginals([teacher.make_doc(doc.text)])[0]
        assert get_soft_labels(doc, component.tags) == pytest.approx(expected, abs=2e-3)
        assert PROMPT_TARGET_KEY not in doc.user_data
    assert [KNOWLEDGE_KEY in doc.user_data for doc in docs] == [
        KNOWLEDGE_KEY in doc.user_data for doc in sources
    ]


def test_a_folder_is_read_in_order(
    command: Command, model: Path, corpus: Path, tmp_path: Path
) -> None:
    result = command("teach", model, corpus, "-o", tmp_path / "taught.spacy")
    assert result.exit_code == 0, result.output
    parts = ("dev", "test", "train", "unlabelled")
    ids = [doc.user_data[ID_KEY] for part in parts for doc in read(corpus / f"{part}.spacy")]
    assert [doc.user_data[ID_KEY] for doc in read(tmp_path / "taught.spacy")] == ids


def test_the_same_input_gives_the_same_file(
    command: Command, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    made = []
    for size in (1, 1, 64):
        options = ("-o", tmp_path / "taught.spacy", "--batch-size", size)
        assert command("teach", model, toy_data, *options).exit_code == 0
        made.append((tmp_path / "taught.spacy").read_bytes())
    assert made[0] == made[1]
    assert len(made[2]) == pytest.approx(len(made[0]), rel=0.05)


def test_teaching_a_taught_file_again_replaces(
    command: Command, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.spacy", tmp_path / "second.spacy"
    assert command("teach", model, toy_data, "-o", first).exit_code == 0
    assert command("teach", model, first, "-o", second).exit_code == 0
    assert [doc.to_bytes() for doc in read(first)] == [doc.to_bytes() for doc in read(second)]


def test_prompt_targets(
    command: Command, model: Path, bert: Path, bare_data: Path, tmp_path: Path
) -> None:
    taught = tmp_path / "taught.spacy"
    options = ("--prompt-length", 3, "--knowledge-encoder", bert)
    result = command("teach", model, bare_data, "-o", taught, *options)
    assert result.exit_code == 0, result.output
    assert "1 prompt targets" in result.output
    targets = [doc.user_data.get(PROMPT_TARGET_KEY) for doc in read(taught)]
    assert [target is not None for target in targets].count(True) == 1
    assert numpy.frombuffer(targets[1]["vectors"], dtype="float16").shape == (3 * 32,)


def test_an_empty_doc_is_kept(command: Command, model: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    docs = [nlp("Anna sings"), Doc(nlp.vocab), nlp(" \n ")]
    DocBin(docs=docs).to_disk(tmp_path / "in.spacy")
    result = command("teach", model, tmp_path / "in.spacy", "-o", tmp_path / "out.spacy")
    assert result.exit_code == 0, result.output
    found = read(tmp_path / "out.spacy")
    assert [doc.text for doc in found] == ["Anna sings", "", " \n "]
    tags = get_soft_tags(found[0])
    assert [len(get_soft_labels(doc, tags)) for doc in found] == [2, 0, 1]


def test_broken_data(
    fails: Fails, model: Path, broken_data: tuple[str, Path], tmp_path: Path
) -> None:
    code, path = broken_data
    assert str(path) in fails(code, "teach", model, path, "-o", tmp_path / "taught.spacy")
    assert not (tmp_path / "taught.spacy").exists()


def test_a_pipeline_that_cannot_teach(fails: Fails, toy_data: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.to_disk(tmp_path / "model")
    output = ("-o", tmp_path / "taught.spacy")
    assert "sentencizer" in fails("E502", "teach", tmp_path / "model", toy_data, *output)


def test_prompt_targets_without_an_encoder(
    fails: Fails, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    options = ("-o", tmp_path / "taught.spacy", "--prompt-length", 2)
    assert "--knowledge-encoder" in fails("E504", "teach", model, toy_data, *options)


def test_an_encoder_that_is_not_there(
    fails: Fails, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    options = ("-o", tmp_path / "t.spacy", "--prompt-length", 2, "--knowledge-encoder")
    fails("E400", "teach", model, toy_data, *options, "package:no_such_package")
    empty = tmp_path / "empty"
    empty.mkdir()
    fails("E402", "teach", model, toy_data, *options, empty)


def test_output_that_cannot_be_written(
    fails: Fails, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    fails("E103", "teach", model, toy_data, "-o", tmp_path / "file" / "taught.spacy")


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("E715", ("-o", "folder")),
        ("E811", ("-o", "t.spacy", "--scheme", "scheme.yml")),
        ("E811", ("-o", "t.spacy", "--from", "conclusions", "--map", "labels.yml")),
    ],
)
def test_options_that_would_be_ignored(
    command: Command, toy_data: Path, code: str, options: tuple[str, ...]
) -> None:
    result = command("teach", "model", toy_data, *options)
    assert (result.exit_code, result.stderr[:8]) == (2, f"✘ [{code}]")


def test_a_stopped_job_goes_on(model: Path, toy_data: Path, tmp_path: Path) -> None:
    request = TeachRequest([str(model)], [toy_data], tmp_path / "taught.spacy", chunk=2)
    done: list[int] = []

    def engine(load: WorkFactory, chunks: Sequence[Chunk]) -> Iterator[int]:
        for chunk, rows in zip(chunks, choose_engine("local", None)(load, chunks), strict=True):
            done.append(chunk.number)
            yield rows
            if len(done) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach_files(request, engine)
    assert done == [0, 1]
    assert not request.output.exists()
    result = teach_files(request, engine)
    assert done == [0, 1, 2, 3]
    assert result.docs == len(toy.texts())
    assert [doc.text for doc in read(request.output)] == toy.texts()
    assert all(get_soft_tags(doc) for doc in read(request.output))
    # Nothing of the job is left beside the output.
    assert {path.name for path in tmp_path.iterdir()} == {"model", "taught.spacy"}


def test_several_teachers(
    command: Command, fails: Fails, model: Path, toy_data: Path, tmp_path: Path
) -> None:
    other, taught = tmp_path / "other", tmp_path / "taught.spacy"
    nlp = toy.initialised()
    nlp.to_disk(other)
    result = command("teach", model, toy_data, "--with", other, "-o", taught)
    assert result.exit_code == 0, result.output
    tags = nlp.get_pipe("mmcot_ner").tags
    docs = [spacy.blank("en").make_doc(doc.text) for doc in read(taught)]
    each = [
        spacy.load(path).get_pipe("mmcot_ner").predict_marginals(docs) for path in (model, other)
    ]
    for doc, first, second in zip(read(taught), *each, strict=True):
        assert get_soft_labels(doc, tags) == pytest.approx((first + second) / 2, abs=2e-3)
    missing = tmp_path / "none"
    assert str(missing) in fails("E700", "teach", model, toy_data, "--with", missing, "-o", taught)


def test_any_pipeline_with_a_table_of_labels(
    command: Command, fails: Fails, toy_data: Path, tmp_path: Path
) -> None:
    nlp = spacy.blank("en")
    patterns = [{"label": "GPE", "pattern": "Oslo"}, {"label": "DATE", "pattern": "tonight"}]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.to_disk(tmp_path / "ruler")
    table, taught = tmp_path / "labels.yml", tmp_path / "taught.spacy"
    table.write_text("GPE: LOC\n", "utf-8")
    options = ("teach", tmp_path / "ruler", toy_data, "-o", taught, "--chunk", 5)
    result = command(*options, "--map", table)
    assert result.exit_code == 0, result.output
    docs = read(taught)
    n_dates = sum(doc.text.count("tonight") for doc in docs)
    assert n_dates and f"{n_dates} entities were left out" in result.output
    assert f"overlap others: DATE {n_dates}" in result.output
    for doc in docs:
        found = get_soft_labels(doc, ["O", "B-LOC", "I-LOC"])
        assert [row.argmax() == 1 for row in found] == [token.text == "Oslo" for token in doc]
    assert "--map" in fails("E502", *options)
    table.write_text("CITY: LOC\n", "utf-8")
    assert "GPE" in fails("E510", *options, "--map", table)
    fails("E100", *options, "--map", tmp_path / "none.yml")
    assert "--map" in fails("E513", "teach", "gliner:any/model", toy_data, "-o", taught)
