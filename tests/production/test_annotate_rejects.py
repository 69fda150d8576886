"""Rows that cannot be annotated: none is lost without a word, and none stops the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import spacy
from click.testing import Result
from made_tables import read_jsonl, rows, write_jsonl
from spacy.language import Language
from spacy.tokens import Doc

Command = Callable[..., Result]


def test_bad_rows_of_json_lines(annotate: Command, tmp_path: Path) -> None:
    good = [json.dumps(row).encode() for row in rows(3)]
    lines = [
        b"\xef\xbb\xbf" + good[0],
        b'{"text": "half',
        b"",
        b'{"text": "\xff"}',
        b'["a list"]',
        b'{"id": 1}',
        b'{"text": 5}',
        b'{"text": "  "}',
        b'{"text": null}',
        b'{"text": "\\ud800"}',
        b'{"text": "x", "id": [1]}',
        good[1],
        b'{"text": "' + b"a" * 1_000_001 + b'"}',
        good[2].replace(b"p2", "p\u2028é".encode()),
    ]
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\r\n".join(lines))
    for chunk in (1, 3, 100):
        output = tmp_path / f"out{chunk}.jsonl"
        result = annotate(source, "-o", output, "--chunk", chunk)
        assert result.exit_code == 3, result.output
        assert "13 rows, 10 rejected" in result.output
        assert [row["n"] for row in read_jsonl(output)] == [0, 1, 2]
        rejects = read_jsonl(tmp_path / f"out{chunk}.jsonl.rejected.jsonl")
        assert [row["row"] for row in rejects] == [2, 4, 5, 6, 7, 8, 9, 10, 11, 13]
        assert {row["input"] for row in rejects} == {str(source)}
        reasons = [row["reason"] for row in rejects]
        for reason, part in zip(
            reasons,
            (
                *("not JSON", "0xff, is not UTF-8", "not an object", "no 'text', only 'id'"),
                *("the text is 5 (int)", "no text: '  '", "no text", "surrogate"),
                *("the id is [1]", "1000001 characters"),
            ),
            strict=True,
        ):
            assert part in reason


def test_bad_rows_of_csv(annotate: Command, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(
        b"\xef\xbb\xbfid,text\r\n"
        b'1,"Anna sings, in Oslo"\r\n'
        b"2,too,many\r\n"
        b"3\r\n"
        b"4,\xfe\r\n"
        b'5,"two\nlines ""quoted"""\r\n'
        b"\r\n"
        b'6,"bad" quote\r\n'
        b"7,\r\n"
        b"8,last"
    )
    outputs = []
    for chunk in (1, 2, 100):
        output = tmp_path / f"out{chunk}.csv"
        assert annotate(source, "-o", output, "--chunk", chunk).exit_code == 3
        outputs.append(output.read_text("utf-8"))
        rejects = read_jsonl(tmp_path / f"out{chunk}.csv.rejected.jsonl")
        assert [row["row"] for row in rejects] == [3, 4, 5, 9, 10]
        assert "3 cells, the header 2" in rejects[0]["reason"]
        assert "1 cells, the header 2" in rejects[1]["reason"]
        assert "0xfe is not UTF-8" in rejects[2]["reason"]
        assert "not CSV" in rejects[3]["reason"]
        assert "no text" in rejects[4]["reason"]
    assert outputs[0] == outputs[1] == outputs[2]
    assert [line[:2] for line in outputs[0].splitlines()] == ["id", "1,", "5,", "li", "8,"]


def test_a_quote_that_is_never_closed_ends_with_the_file(annotate: Command, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text('text\nAnna sings\n"Bo never\n', "utf-8")
    assert annotate(source, "-o", tmp_path / "out.csv").exit_code == 3
    (reject,) = read_jsonl(tmp_path / "out.csv.rejected.jsonl")
    assert (reject["row"], reject["reason"][:7]) == (3, "not CSV")
    assert reject["raw"] == repr('"Bo never')


def test_a_null_is_told_from_a_missing_column(annotate: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": None}, {"texts": "Anna"}])
    assert annotate(source, "-o", tmp_path / "out.jsonl").exit_code == 3
    reasons = [row["reason"] for row in read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")]
    assert reasons == [
        "no text: 'text' is null, or an empty cell",
        "no text: the row has no 'text', only 'texts'",
    ]


def test_the_format_of_the_output_is_an_option(annotate: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", rows(2))
    result = annotate(source, "-o", tmp_path / "out.txt")
    assert "[E104]" in result.stderr and "Give one with --format" in result.stderr
    assert annotate(source, "-o", tmp_path / "out.txt", "--format", "jsonl").exit_code == 0


@Language.component("fails_on_bo")
def fails_on_bo(doc: Doc) -> Doc:
    if "Bo" in doc.text:
        raise RuntimeError("Bo is too much")
    return doc


class SkipsBo:
    """What an error handler that ignores errors does: the Doc is missing from the stream."""

    def __call__(self, doc: Doc) -> Doc:
        return doc

    def pipe(self, docs: Iterable[Doc], batch_size: int) -> Iterator[Doc]:
        return (doc for doc in docs if "Bo" not in doc.text)


@Language.factory("skips_bo")
def make_skips_bo(nlp: Language, name: str) -> SkipsBo:
    return SkipsBo()


@pytest.mark.parametrize(
    ("component", "reason"),
    [("fails_on_bo", "Bo is too much"), ("skips_bo", "error handler skipped the text")],
)
def test_a_doc_on_which_the_pipeline_fails(
    command: Command, tmp_path: Path, component: str, reason: str
) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(component)
    nlp.to_disk(tmp_path / "model")
    texts = ["Anna sings", "Bo sings", "Carla sings", "Bo again"]
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    result = command("annotate", tmp_path / "model", source, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 3, result.output
    kept = [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert kept == ["Anna sings", "Carla sings"]
    rejects = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert [row["row"] for row in rejects] == [2, 4]
    assert all(reason in row["reason"] for row in rejects)


def test_few_rejected_rows_are_no_failure(annotate: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*rows(19), {"text": 1}])
    result = annotate(source, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 0
    assert "20 rows, 1 rejected" in result.output
    assert "out.jsonl.rejected.jsonl" in result.output
    again = annotate(source, "-o", tmp_path / "out.jsonl", "--threshold", 0.01)
    assert again.exit_code == 3


def test_no_file_of_rejected_rows_without_one(annotate: Command, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"text": 1}])
    assert annotate(bad, "-o", output).exit_code == 3
    good = write_jsonl(tmp_path / "good.jsonl", rows(2))
    assert annotate(good, "-o", output, "--overwrite").exit_code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"bad.jsonl", "good.jsonl", "out.jsonl", "out.jsonl.manifest.json"}


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("in.csv", b"id,body\n1,a\n", "E743"),
        ("in.csv", b"text,text\n1,a\n", "E101"),
        ("in.csv", b"", "E101"),
        ("in.spacy", b"notes", "E201"),
        ("in.spacy", b"", "E201"),
        ("in.xml", b"<a/>", "E754"),
        ("in.csv", "text\nAnna\n".encode("utf-16"), "E755"),
        ("in.csv", "text\nAnna\n".encode("utf-16-le"), "E755"),
        ("in.jsonl", '{"text": "Anna"}\n'.encode("utf-16"), "E755"),
        ("in.jsonl", b'{"text": "a", "entities": []}', "E747"),
    ],
)
def test_inputs_that_are_no_use_at_all(
    annotate: Command, tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    (tmp_path / name).write_bytes(content)
    result = annotate(tmp_path / name, "-o", tmp_path / "out.jsonl")
    assert result.exit_code in (1, 2)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"✘ [{code}] ")
    assert not (tmp_path / "out.jsonl").exists()


def test_parquet_that_is_no_use(annotate: Command, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as pq

    source, output = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    source.write_bytes(b"notes")
    assert "[E102]" in annotate(source, "-o", output).stderr
    pq.write_table(pa.table({"text": [1], "body": ["a"]}), source)
    line = annotate(source, "-o", output).stderr
    assert "[E743]" in line
    assert "Allowed: body" in line
    assert annotate(source, "-o", output, "--text-column", "body").exit_code == 0


def test_a_missing_input_and_an_empty_folder(annotate: Command, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "out.jsonl")
    assert "[E100]" in annotate(tmp_path / "none.jsonl", *output).stderr
    (tmp_path / "empty").mkdir()
    assert "[E741]" in annotate(tmp_path / "empty", *output).stderr
    source = write_jsonl(tmp_path / "out.jsonl", rows(1))
    assert "[E749]" in annotate(source, *output).stderr
    assert "[E749]" in annotate(tmp_path, "-o", tmp_path / "empty" / "out.jsonl").stderr


def test_files_of_folders_that_are_not_read_are_counted(annotate: Command, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jsonl", "b.json", "c.tsv", "d.tsv"):
        write_jsonl(folder / name, rows(1))
    # Neither are hidden files, those of hidden folders, and pictures.
    (folder / ".git").mkdir()
    for name in (".git/hook.sample", ".hidden.tsv", "e.jpg"):
        (folder / name).touch()
    done = annotate(folder, "-o", tmp_path / "out.jsonl")
    assert "1 rows, 0 rejected" in done.stdout
    assert "Other files in the folders, not read: 2 .tsv, 1 .json" in done.stdout


def test_a_pipeline_that_is_not_there(fails: Callable[..., str], tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", rows(1))
    line = fails("E700", "annotate", "no_such_pipeline", source, "-o", tmp_path / "out.jsonl")
    assert "no_such_pipeline" in line


def test_a_picture_outside_the_tables_folder(
    annotate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "tables"
    (tmp_path / "work").mkdir()
    table.mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (table / "link.png").symlink_to(tmp_path / "private.png")
    images = ["x.png", "sub/../x.png", "", None, "https://example.org/x.png", "../work/y.png"]
    hidden = ["../private.png", "/etc/passwd", "link.png", "a\0b", "sub/../../private.png"]
    texts = [{"text": f"Anna {n}", "image": name} for n, name in enumerate(images + hidden)]
    source = write_jsonl(table / "in.jsonl", texts)
    assert annotate(source, "-o", tmp_path / "out.jsonl").exit_code == 3
    assert [row["image"] for row in read_jsonl(tmp_path / "out.jsonl")] == images
    reasons = [row["reason"] for row in read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")]
    assert ["outside the folder" in reason for reason in reasons] == [1, 1, 1, 0, 1]


def test_a_parquet_row_that_is_not_utf8(annotate: Command, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as pq

    def texts(*values: bytes) -> object:
        return pa.array(values, pa.binary()).view(pa.string())

    table = pa.table(
        {
            "text": texts(b"Anna sings", b"\xff\xfe", b"Bo", b"Carla"),
            "note": texts(b"fine", b"fine", b"caf\xe9", "café".encode()),
            "list": pa.ListArray.from_arrays([0, 1, 2, 3, 4], texts(b"a", b"b", b"c", b"\x80")),
            "n": [0, 1, 2, 3],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    for target in ("out.jsonl", "out.parquet"):
        output = tmp_path / target
        assert annotate(tmp_path / "in.parquet", "-o", output).exit_code == 3
        rejects = read_jsonl(tmp_path / f"{target}.rejected.jsonl")
        reasons = {row["row"]: row["reason"] for row in rejects}
        assert reasons == {
            2: "0xff is not UTF-8",
            3: "0xe9 is not UTF-8",
            4: "0x80 is not UTF-8",
        }
    assert [row["n"] for row in read_jsonl(tmp_path / "out.jsonl")] == [0]


def test_parquet_columns_of_one_name(annotate: Command, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as pq

    table = pa.table([["Anna"], ["a"], ["b"]], names=["text", "x", "x"])
    pq.write_table(table, tmp_path / "in.parquet")
    result = annotate(tmp_path / "in.parquet", "-o", tmp_path / "out.jsonl")
    assert (result.exit_code, "two columns 'x'" in result.stderr) == (1, True)


def test_names_that_are_not_utf8(annotate: Command, tmp_path: Path) -> None:
    folder = os.fsdecode(bytes(tmp_path) + b"/caf\xe9\x1b[31m")
    os.mkdir(folder)
    source = Path(folder, os.fsdecode(b"\xfftable.jsonl"))
    write_jsonl(source, [*rows(3), {"text": 1}])
    output = Path(folder, os.fsdecode(b"out\xfe.jsonl"))
    result = annotate(source, "-o", output, "--threshold", 1)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output and "\\udcfe" in result.output
    assert len(read_jsonl(output)) == 3
    (reject,) = read_jsonl(Path(folder, os.fsdecode(b"out\xfe.jsonl.rejected.jsonl")))
    assert reject["input"].endswith("caf\\udce9\\x1b[31m/\\udcfftable.jsonl")
    missing = annotate(Path(folder, "none\x1b[2J.jsonl"), "-o", output)
    assert "[E100]" in missing.stderr and "\x1b" not in missing.stderr
