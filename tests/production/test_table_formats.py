"""Tables in and out: what is found, what is carried, in all pairs of formats."""

from __future__ import annotations

import csv
import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import toy
from click.testing import Result
from made_tables import read_jsonl, rows, write_jsonl
from spacy.tokens import DocBin, Span

from spacy_mmcot.corpus.extensions import register_extensions, set_relations
from spacy_mmcot.corpus.posts import read_posts
from spacy_mmcot.pictures.read import get_image
from spacy_mmcot.production.annotate import extract_findings
from spacy_mmcot.types import ID_KEY, ROW_KEY, Relation

Command = Callable[..., Result]
FORMATS = ("jsonl", "csv", "parquet", "spacy")


@pytest.fixture
def written(annotate: Command, tmp_path: Path) -> Callable[..., Path]:
    """Annotate a file into one of this format; nothing may go wrong."""

    def run(source: Path, format: str, *options: object) -> Path:
        if "parquet" in (format, source.suffix[1:]):
            pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        output = tmp_path / f"{source.stem}-{format}.{format}"
        result = annotate(source, "-o", output, "--chunk", 4, *options)
        assert result.exit_code == 0, result.output
        assert not list(tmp_path.glob("*.parts"))
        return output

    return run


def found_in(path: Path, prefix: str = "") -> list[tuple[str, list[tuple[int, int, str]]]]:
    """(text, entities) of each row."""
    if path.suffix == ".spacy":
        docs = DocBin().from_disk(path).get_docs(spacy.blank("en").vocab)
        return [(d.text, [(e.start_char, e.end_char, e.label_) for e in d.ents]) for d in docs]
    table: list[dict[str, Any]]
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path).to_pylist()
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        for row in table:
            row[f"{prefix}entities"] = json.loads(row[f"{prefix}entities"])
    else:
        table = read_jsonl(path)
    found = []
    for row in table:
        for ent in row[f"{prefix}entities"]:
            assert row["text"][ent["start"] : ent["end"]] == ent["text"]
            assert 0.5 < ent["score"] <= 1
        ents = [(e["start"], e["end"], e["label"]) for e in row[f"{prefix}entities"]]
        found.append((row["text"], ents))
    return found


def expected(count: int) -> list[tuple[str, list[tuple[int, int, str]]]]:
    posts = toy.posts()
    return [
        (text, labels["entities"]) for text, labels in (posts[i % len(posts)] for i in range(count))
    ]


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_every_format_to_every_format(
    written: Callable[..., Path], tmp_path: Path, first: str, second: str
) -> None:
    source = written(write_jsonl(tmp_path / "in.jsonl", rows(10)), first)
    assert found_in(source) == expected(10)
    output = written(source, second, "--prefix", "again_")
    assert found_in(output, "again_") == expected(10)


def test_columns_are_carried(written: Callable[..., Path], tmp_path: Path) -> None:
    values = [{**row, "tags": ["a", row["n"]], "none": None, "zero": ""} for row in rows(3)]
    source = write_jsonl(tmp_path / "in.jsonl", values)
    for row, value in zip(read_jsonl(written(source, "jsonl")), values, strict=True):
        assert list(row) == [*value, "entities", "relations", "confidence", "weakest"]
        assert 0.5 < row["confidence"] <= 1
        assert {name: row[name] for name in value} == value
    docs = list(DocBin().from_disk(written(source, "spacy")).get_docs(spacy.blank("en").vocab))
    assert [doc.user_data[ID_KEY] for doc in docs] == ["p0", "p1", "p2"]
    assert [doc.user_data[ROW_KEY]["n"] for doc in docs] == [0, 1, 2]
    assert "states" not in str(docs[0].user_data)
    back = read_jsonl(written(written(source, "spacy"), "jsonl"))
    for row, value in zip(back, values, strict=True):
        assert {name: row[name] for name in value} == value


def test_the_columns_of_what_was_found() -> None:
    register_extensions()
    doc = spacy.blank("en")("Anna in Oslo")
    doc.ents = [Span(doc, 0, 1, label="PER")]
    doc._.mmcot_rel = [Relation(doc[0:1], doc[2:3], "in", 0.123456)]
    assert extract_findings(doc) == {
        # Entities that were set by hand have no probability.
        "entities": [{"start": 0, "end": 4, "label": "PER", "text": "Anna", "score": None}],
        "relations": [{"head": [0, 4], "tail": [8, 12], "label": "in", "score": 0.1235}],
        "confidence": None,
        "weakest": None,
    }


def test_parquet_keeps_its_types(written: Callable[..., Path], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as pq

    texts = toy.texts()
    table = pa.table(
        {
            "text": pa.array(texts, pa.large_string()).dictionary_encode(),
            "at": pa.array([1_700_000_000_123_456_789 + i for i in range(7)], pa.timestamp("ns")),
            "price": pa.array([decimal.Decimal("1.25")] * 6 + [None], pa.decimal128(8, 2)),
            "day": pa.array([datetime.date(2024, 1, 1)] * 7),
            "small": pa.array(range(7), pa.int8()),
            "nested": pa.array([{"a": [i], "b": None} for i in range(7)]),
            "raw": pa.array([b"\x00\xff"] * 7),
        }
    )
    source = tmp_path / "in.parquet"
    # Several row groups, and chunks that begin inside them.
    pq.write_table(table, source, row_group_size=3)
    result = pq.read_table(written(source, "parquet"))
    for name in table.column_names[1:]:
        assert result[name].combine_chunks().equals(table[name].combine_chunks()), name
        assert result.schema.field(name).type == table.schema.field(name).type
    assert result["text"].to_pylist() == texts
    row = read_jsonl(written(source, "jsonl"))[0]
    assert row["at"].startswith("2023-11-14")
    assert (row["price"], row["day"], row["small"]) == ("1.25", "2024-01-01", 0)
    assert (row["nested"], row["raw"]) == ({"a": [0], "b": None}, "AP8=")


def test_mixed_columns_become_json_text(written: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as pq

    values = [
        {"text": "Anna sings", "m": 1, "f": 1, "big": 2**70, "long": 2**60 + 1, "id": 2**60},
        {"text": "Bo", "m": "a", "f": 0.5, "late": True, "long": 0.5, "id": 2},
    ]
    table = pq.read_table(written(write_jsonl(tmp_path / "in.jsonl", values), "parquet"))
    assert table["m"].to_pylist() == ["1", '"a"']
    assert table["f"].to_pylist() == [1.0, 0.5]
    assert table["big"].to_pylist() == [str(2**70), None]
    assert table["late"].to_pylist() == [None, True]
    assert table["long"].to_pylist() == [str(2**60 + 1), "0.5"]
    assert table["id"].to_pylist() == [2**60, 2]


@pytest.mark.parametrize(("type", "value"), [("uint64", 2**64 - 1), ("int64", 2**60 + 1)])
def test_parquet_numbers_that_no_common_type_holds(
    annotate: Command, tmp_path: Path, type: str, value: int
) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"], "n": pa.array([value], type)}), tmp_path / "a.parquet")
    other = -1 if type == "uint64" else 0.5
    source = write_jsonl(tmp_path / "b.jsonl", [{"text": "b", "n": other}])
    output = tmp_path / "out.parquet"
    result = annotate(tmp_path / "a.parquet", source, "-o", output)
    if type == "uint64":
        assert pq.read_table(output)["n"].to_pylist() == [str(value), "-1"]
    else:
        assert "[E756] The column 'n' cannot be written as Parquet" in result.stderr


def test_gold_annotation_is_not_taken_for_a_finding(
    annotate: Command, model: str, tmp_path: Path
) -> None:
    docs = [eg.reference for eg in toy.examples(spacy.blank("en"))]
    for doc in docs:
        doc.set_ents([doc[0:1]] if doc.ents else [])
        set_relations(doc, [Relation(doc[0:1], doc[0:1], "wrong", 1.0)])
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "gold.spacy")
    output = tmp_path / "out.jsonl"
    assert annotate(tmp_path / "gold.spacy", "-o", output).exit_code == 0
    assert found_in(output) == expected(len(docs))
    assert all(row["relations"] == [] for row in read_jsonl(output))


def test_several_inputs_and_folders_in_order(annotate: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "b.jsonl", rows(9)[5:])
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(9)[:5])
    (tmp_path / "in" / "notes.txt").write_text("not a table", "utf-8")
    last = write_jsonl(tmp_path / "last.jsonl", rows(12)[9:])
    assert annotate(tmp_path / "in", last, "-o", tmp_path / "o.jsonl").exit_code == 0
    assert [row["n"] for row in read_jsonl(tmp_path / "o.jsonl")] == list(range(12))


@pytest.mark.parametrize("format", FORMATS)
def test_an_output_folder_keeps_its_parts(annotate: Command, tmp_path: Path, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    source = write_jsonl(tmp_path / "in.jsonl", rows(10))
    options = ("-o", tmp_path / "out", "--format", format, "--chunk", 4)
    assert annotate(source, *options).exit_code == 0
    parts = sorted((tmp_path / "out").iterdir())
    assert [part.name for part in parts] == [f"part-{i:06d}.{format}" for i in range(3)]
    assert [row for part in parts for row in found_in(part)] == expected(10)
    again = annotate(source, *options)
    assert "10 were done already" in again.output


@pytest.mark.parametrize("format", FORMATS)
def test_no_rows(written: Callable[..., Path], tmp_path: Path, format: str) -> None:
    empty = tmp_path / "none.jsonl"
    empty.write_text("\n", "utf-8")
    output = written(empty, format)
    assert found_in(output) == []


def test_pictures_go_through_the_policy(annotate: Command, tmp_path: Path) -> None:
    """A path is looked for beside the input; the fitted pipeline does not see, so none is read."""
    values = [{"text": "Anna sings", "image": "a.png"}, {"text": "Anna sings", "image": 5}]
    source = write_jsonl(tmp_path / "in.jsonl", values)
    output = tmp_path / "o.spacy"
    assert annotate(source, "-o", output, "--threshold", 0.5).exit_code == 0
    (doc,) = DocBin().from_disk(output).get_docs(spacy.blank("en").vocab)
    assert get_image(doc) == (tmp_path / "a.png").as_posix()
    (reject,) = read_jsonl(tmp_path / "o.spacy.rejected.jsonl")
    assert (reject["row"], "the picture is 5" in reject["reason"]) == (2, True)


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2024", "2025"], [2024, 2025]),
        (["01", "11"], ["01", "11"]),
        (["a b", "x%2Fy%3D"], ["a b", "x/y="]),
        (["7", "__HIVE_DEFAULT_PARTITION__"], [7, None]),
        (["-3", "0"], [-3, 0]),
        (["1e5", "=="], ["1e5", "=="]),
    ],
)
def test_folders_that_stand_for_columns(
    annotate: Command, tmp_path: Path, format: str, values: list[str], expected: list[Any]
) -> None:
    """As Hive, Spark and pyarrow write them."""
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    for number, value in enumerate(values):
        folder = tmp_path / "in" / f"key={value}" / "lang=en"
        folder.mkdir(parents=True)
        write_jsonl(folder / f"{number}.jsonl", [{"text": "Anna sings", "n": number}])
    output = tmp_path / f"out.{format}"
    assert annotate(tmp_path / "in", "-o", output).exit_code == 0
    if format == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(output).to_pylist()
    elif format == "csv":
        with output.open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        expected = ["" if value is None else str(value) for value in expected]
    else:
        table = read_jsonl(output)
    by_row = sorted((int(row["n"]), row["key"], row["lang"]) for row in table)
    assert by_row == [(n, value, "en") for n, value in enumerate(expected)]


def test_a_files_own_column_beats_that_of_a_folder(annotate: Command, tmp_path: Path) -> None:
    folder = tmp_path / "day=1"
    folder.mkdir()
    source = write_jsonl(folder / "in.jsonl", [{"text": "Anna", "day": "own"}])
    assert annotate(source, "-o", tmp_path / "out.jsonl").exit_code == 0
    assert read_jsonl(tmp_path / "out.jsonl")[0]["day"] == "own"


def test_plain_values_stay_plain_in_csv(written: Callable[..., Path], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as pq

    moment = datetime.datetime(2024, 1, 2, 3, 4, 5)
    columns = {
        "text": ["Anna sings"],
        "day": pa.array([datetime.date(2024, 1, 2)]),
        "at": pa.array([moment], pa.timestamp("us")),
        "fine": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "price": pa.array([decimal.Decimal("1.50")], pa.decimal128(8, 2)),
        "time": pa.array([moment.time()]),
        "raw": pa.array([b"\x00\xff"]),
        "nothing": pa.array([None], pa.null()),
        "nan": pa.array([float("nan")]),
        "yes": pa.array([True]),
        "list": pa.array([["a"]]),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    with written(tmp_path / "in.parquet", "csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["day"] == "2024-01-02"
    assert row["at"] == "2024-01-02T03:04:05"
    assert row["fine"].startswith("2023-11-14 22:13:20.123456789")
    assert (row["price"], row["time"], row["raw"]) == ("1.50", "03:04:05", "AP8=")
    assert (row["nothing"], row["nan"], row["yes"], row["list"]) == ("", "", "true", '["a"]')


def test_numbers_of_several_widths_share_a_column(annotate: Command, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    import pyarrow.parquet as pq

    for name, kind in (("a", pa.int8()), ("b", pa.int64()), ("c", pa.uint16())):
        table = pa.table({"text": ["Anna"], "n": pa.array([7], kind)})
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
    assert annotate(tmp_path / "in", "-o", tmp_path / "out.parquet").exit_code == 0
    assert pq.read_table(tmp_path / "out.parquet")["n"].to_pylist() == [7, 7, 7]


def test_whole_numbers_of_any_size_go_everywhere(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"text": "Anna", "n": 2**70, "d": {"x": [-(2**65)]}}]
    )
    assert read_jsonl(written(source, "jsonl"))[0]["n"] == 2**70
    assert written(source, "csv").read_text("utf-8").count(str(2**70)) == 1
    back = read_jsonl(written(written(source, "spacy"), "jsonl"))[0]
    assert (back["n"], back["d"]) == (str(2**70), {"x": [str(-(2**65))]})


@pytest.mark.parametrize("format", FORMATS)
def test_convert_reads_what_annotate_writes(
    written: Callable[..., Path], command: Command, tmp_path: Path, format: str
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", rows(6))
    output = tmp_path / "posts.jsonl"
    result = command("convert", written(source, format), "-o", output)
    assert result.exit_code == 0, result.output
    posts = read_posts(output)
    assert [post.id for post in posts] == [f"p{i}" for i in range(6)]
    found = [(p.text, [(e.start, e.end, e.label) for e in p.entities or ()]) for p in posts]
    assert found == expected(6)
    assert all(post.relations in ([], None) for post in posts)
