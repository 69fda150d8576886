"""A file of each format that `convert` reads, as the tools write them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import DocBin

from spacy_mmcot.corpus.docbin import write_docs
from spacy_mmcot.corpus.docs import make_doc
from spacy_mmcot.corpus.formats import guess_format, read_corpus
from spacy_mmcot.corpus.posts import (
    Findings,
    ReadSettings,
    Row,
    make_text_id,
    make_unique_id,
    write_posts,
)
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.evaluation.review import Review
from spacy_mmcot.report.review import format_reviews
from spacy_mmcot.scheme import Scheme
from spacy_mmcot.types import Entity, Post, PostRelation

NLP = spacy.blank("en")
TEXT = "Anna Berg sings in Oslo"
PER, LOC = (0, 9, "PER"), (19, 23, "LOC")
RAW = [{"start": s, "end": e, "label": label} for s, e, label in (PER, LOC)]
TASK = {"text": TEXT, "spans": RAW, "answer": "accept", "_input_hash": 1}
STUDIO = [
    {
        "id": name,
        "type": "labels",
        "from_name": "label",
        "to_name": "text",
        "value": {"start": s, "end": e, "text": TEXT[s:e], "labels": [label]},
    }
    for name, (s, e, label) in (("a", PER), ("b", LOC))
]
PAST_THE_END = {"type": "labels", "value": {"start": 19, "end": 99, "labels": ["LOC"]}}
JOIN = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right", "labels": ["in"]}


def read(path: Path, **changes: Any) -> list[Row]:
    return read_corpus([path], Findings(), ReadSettings(**changes))


def spans(post: Post) -> list[tuple[int, int, str]] | None:
    return None if post.entities is None else [(e.start, e.end, e.label) for e in post.entities]


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


CONLL = {
    "two columns": "Anna\tB-PER\nBerg\tI-PER\nsings\tO\nin\tO\nOslo\tB-LOC\n\nBye\tO\n",
    "spaces": "Anna B-PER\nBerg I-PER\nsings O\nin O\nOslo B-LOC\n\nBye O\n",
    "CoNLL-2003": "-DOCSTART- -X- -X- O\n\nAnna NNP B-NP I-PER\nBerg NNP I-NP I-PER\n"
    "sings VBZ B-VP O\nin IN B-PP O\nOslo NNP B-NP I-LOC\n\n-DOCSTART- -X- -X- O\n\nBye UH O O\n",
    "BIOES": "Anna B-PER\nBerg E-PER\nsings O\nin O\nOslo S-LOC\n\nBye O\n",
    "BILOU": "Anna\tNNP\tB-PER\nBerg\tNNP\tL-PER\nsings\tV\tO\nin\tP\tO\nOslo\tN\tU-LOC\n\n"
    "Bye\tU\tO",
    "comments": "# id = 1\n# text = Anna ...\nAnna B-PER\nBerg I-PER\nsings O\nin O\nOslo B-LOC\n"
    "\n# id = 2\nBye O\n",
    "numbered": "1\tAnna\tNNP\tB-PER\n2\tBerg\tNNP\tI-PER\n3\tsings\tV\tO\n4\tin\tP\tO\n"
    "5\tOslo\tN\tB-LOC\n\n1\tBye\tUH\tO\n",
    "CRLF, BOM": "\ufeffAnna B-PER\r\nBerg I-PER\r\nsings O\r\nin O\r\nOslo B-LOC\r\n\r\nBye O\r\n",
}


@pytest.mark.parametrize("name", ["train.conll", "train.txt", "train.tsv"])
@pytest.mark.parametrize("content", CONLL.values(), ids=CONLL.keys())
def test_conll(tmp_path: Path, content: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    first, second = read(path)
    assert (first.post.text, spans(first.post)) == (TEXT, [PER, LOC])
    assert (second.post.text, spans(second.post)) == ("Bye", [])
    assert first.post.id == make_text_id(TEXT)
    documents = {row.group for row in (first, second)}
    assert len(documents) == (2 if "DOCSTART" in content else 1)


def test_conll_neighbours_in_iob1_and_a_token_that_is_a_sign(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("Oslo I-LOC\nRome B-LOC\nAnna I-PER\n# O\n\n# O\nBo I-PER\n", encoding="utf-8")
    first, second = read(path)
    assert spans(first.post) == [(0, 4, "LOC"), (5, 9, "LOC"), (10, 14, "PER")]
    assert (first.post.text[-1], second.post.text) == ("#", "# Bo")


DOCCANO = {"id": 7, "text": TEXT, "label": [list(PER), list(LOC)], "Comments": []}
DOCCANO_RELATIONS = {
    "id": 7,
    "text": TEXT,
    "entities": [
        {"id": 31, "label": "PER", "start_offset": 0, "end_offset": 9},
        {"id": 30, "label": "LOC", "start_offset": 19, "end_offset": 23},
    ],
    "relations": [{"id": 1, "from_id": 31, "to_id": 30, "type": "in"}],
    "Comments": [],
}
STUDIO_TASK = {"id": 5, "data": {"text": TEXT}, "annotations": [{"result": [*STUDIO, JOIN]}]}
ANNOTATED = {
    "id": "a",
    "text": TEXT,
    "mood": "good",
    "entities": [{**row, "text": "", "score": 0.5} for row in RAW],
    "relations": [{"head": [0, 9], "tail": [19, 23], "label": "in", "score": 0.9}],
    "confidence": 0.7,
}
EXPORTS = {
    "prodigy.jsonl": ("prodigy", lines(TASK)),
    "doccano.jsonl": ("doccano", lines(DOCCANO)),
    "doccano2.jsonl": ("doccano", lines(DOCCANO_RELATIONS)),
    "studio.json": ("label-studio", json.dumps([STUDIO_TASK]).encode()),
    "studio-min.json": (
        "label-studio",
        json.dumps([{"id": 5, "text": TEXT, "label": [s["value"] for s in STUDIO]}]).encode(),
    ),
    "doccano.json": ("doccano", json.dumps([DOCCANO]).encode()),
    "prodigy.json": ("prodigy", json.dumps([TASK]).encode()),
    "posts.json": ("posts", json.dumps([{"id": "a", "text": TEXT, "entities": RAW}]).encode()),
    "tuples.json": ("spacy-json", json.dumps([[TEXT, {"entities": [PER, LOC]}]]).encode()),
    "tuples.jsonl": ("spacy-json", lines([TEXT, {"entities": [PER, LOC]}])),
    "wrapped.json": (
        "spacy-json",
        json.dumps(
            {"classes": ["PER"], "annotations": [[TEXT, {"entities": [PER, LOC]}], None]}
        ).encode(),
    ),
    "annotated.jsonl": ("table", lines(ANNOTATED)),
    "posts.jsonl": ("posts", lines({"id": "a", "text": TEXT, "entities": RAW})),
    "tokens.jsonl": (
        "table",
        lines({"tokens": TEXT.split(), "ner_tags": ["B-PER", "I-PER", "O", "O", "B-LOC"]}),
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_of_tools(tmp_path: Path, name: str) -> None:
    kind, content = EXPORTS[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert guess_format(path) == kind
    (row,) = read(path)
    assert (row.post.text, spans(row.post)) == (TEXT, [PER, LOC])
    if "relation" in content.decode() or "from_id" in content.decode():
        (relation,) = row.post.relations or []
        assert (relation.head, relation.tail, relation.label) == (0, 1, "in")


def test_label_studio_counts_utf_16_and_keeps_one_annotation(tmp_path: Path) -> None:
    text = "🎉 Anna"
    value = {"start": 3, "end": 7, "text": "Anna", "labels": ["PER", "MISC"]}
    first = {"result": [{"id": "x", "type": "labels", "value": value}]}
    tasks = [
        {
            "id": 1,
            "data": {"text": text},
            "annotations": [first, {"result": [], "was_cancelled": 1}],
        },
        {"id": 2, "data": {"body": "nobody looked"}, "annotations": []},
        {
            "id": 3,
            "data": {"text": text},
            "annotations": [{"result": []}, {**first, "ground_truth": 1}],
        },
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    findings = Findings()
    rows = read_corpus([path], findings)
    assert [spans(row.post) for row in rows] == [[(2, 6, "PER")], None, [(2, 6, "PER")]]
    assert [row.post.id for row in rows] == ["1", "2", "3"]
    report = "\n".join(findings.describe())
    assert "row 1: MISC" in report and "another one replaces, left out: 2" in report
    tasks[0]["annotations"][0]["result"][0]["value"]["text"] = "Bo"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    with pytest.raises(MMCoTError, match=r"row 1: the characters 3 to 7 are not 'Bo'"):
        read(path)


def answer(kind: str, span: tuple[int, int, str], text: str = TEXT, **more: Any) -> dict[str, Any]:
    start, end, label = span
    spans = [{"start": start, "end": end, "label": label}]
    return {"text": text, "spans": spans, "answer": kind, "_view_id": "ner", **more}


@pytest.mark.parametrize("view", [{}, {"_view_id": None}])
def test_binary_answers_become_one_post_that_is_labelled_in_part(
    jsonl: Callable[..., Path], view: dict[str, Any]
) -> None:
    rows = [
        answer("accept", PER, **view),
        answer("reject", (19, 23, "ORG"), **view),
        answer("ignore", (10, 15, "ORG"), **view),
        answer("reject", (0, 4, "PER"), "Rosa is red", **view),
        answer("accept", LOC, **view),
    ]
    path, findings = jsonl("binary.jsonl", *rows), Findings()
    first, second = read_corpus([path], findings)
    assert "labelled in part: 2" in "\n".join(findings.describe())
    assert (first.number, second.number) == (0, 3)
    assert spans(first.post) == [PER, LOC]
    assert first.post.missing == [(9, 19)]
    assert first.post.rejected == [Entity(start=19, end=23, label="ORG")]
    assert (spans(second.post), second.post.missing) == ([], [(0, 11)])
    assert not first.post.is_fully_labelled


def test_a_span_with_two_answers_keeps_the_later_one(jsonl: Callable[..., Path]) -> None:
    findings = Findings()
    path = jsonl("binary.jsonl", answer("accept", PER), answer("reject", PER))
    (row,) = read_corpus([path], findings)
    assert (spans(row.post), row.post.missing) == ([], [(0, len(TEXT))])
    assert "the later answer kept: 1" in "\n".join(findings.describe())


def png(color: str = "red") -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (4, 3), color).save(file, "PNG")
    return file.getvalue()


def test_pictures_by_id_name_and_data_url(tmp_path: Path, jsonl: Callable[..., Path]) -> None:
    folder = tmp_path / "pictures" / "below"
    folder.mkdir(parents=True)
    for name in ("17_06_1.JPG", "2.png", "a.webp"):
        (folder / name).write_bytes(png())
    conll = tmp_path / "train.txt"
    conll.write_text("IMGID:17_06_1\nAnna\tB-PER\n\nIMGID:3\nBo\tB-PER\n", encoding="utf-8")
    data = f"data:image/png;base64,{base64.b64encode(png('blue')).decode()}"
    prodigy = jsonl(
        "prodigy.jsonl",
        {**TASK, "image": "elsewhere/2.png"},
        {**TASK, "text": "b", "spans": [], "image": data},
        {**TASK, "text": "c", "spans": [], "image": "https://example.org/x.png"},
        {**TASK, "text": "d", "spans": [], "meta": {"id": "a"}},
        {**TASK, "text": "e", "spans": [], "image": "data:text/plain,hello"},
    )
    findings = Findings()
    where = ReadSettings(pictures=tmp_path / "pictures", extracted=tmp_path / "out")
    images = [row.post.image for row in read_corpus([conll, prodigy], findings, where)]
    assert images[:3] == [str(folder / "17_06_1.JPG"), None, str(folder / "2.png")]
    assert Path(images[3] or "").read_bytes() == png("blue")
    assert images[4:] == ["https://example.org/x.png", str(folder / "a.webp"), None]
    assert "pictures in the file that cannot be read: 1" in "\n".join(findings.describe())
    row = {"token": ["Anna", "Bo"], "h": {"name": "Anna", "pos": [0, 1]}, "relation": "None"}
    mnre = tmp_path / "mnre.txt"
    mnre.write_text(repr({**row, "t": {"name": "Bo", "pos": [1, 2]}, "img_id": "2.png"}) + "\n")
    assert [r.post.image for r in read_corpus([mnre], Findings(), where)] == [str(folder / "2.png")]


def test_pictures_that_were_converted_and_names_that_no_file_can_have(
    tmp_path: Path, jsonl: Callable[..., Path]
) -> None:
    for name in ("7.webp", "9.tar.png"):
        (tmp_path / name).write_bytes(png())
    row = {"token": ["Anna", "Bo"], "h": {"name": "Anna", "pos": [0, 1]}, "relation": "None"}
    row |= {"t": {"name": "Bo", "pos": [1, 2]}}
    mnre = tmp_path / "mnre.txt"
    mnre.write_text("".join(f"{ {**row, 'img_id': n}!r}\n" for n in ("7.jpg", "9.tar", "7.x")))
    where = ReadSettings(pictures=tmp_path)
    found = [row.post.image for row in read_corpus([mnre], Findings(), where)]
    assert found == [str(tmp_path / "7.webp"), str(tmp_path / "9.tar.png"), None]
    names = ["n" * 300 + ".png", "a" * 5000, "\0.png", "x/" * 3000]
    path = jsonl("prodigy.jsonl", *({"text": n, "spans": [], "image": n} for n in names))
    findings = Findings()
    assert len(read_corpus([path], findings, where)) == 4
    assert "picture is not there: 4" in "\n".join(findings.describe())
    (tmp_path / "sub").mkdir()
    data = f"DATA:image/PNG;base64,{base64.b64encode(png('blue')).decode()}"
    named = ({"text": n, "spans": [], "image": n} for n in ("../7.webp", data))
    path = jsonl("sub/prodigy.jsonl", *named)
    findings = Findings()
    first, second = read_corpus([path], findings, ReadSettings(extracted=tmp_path / "out"))
    assert Path(first.post.image or "").resolve() == tmp_path / "7.webp"
    assert "outside of their file's folder and the working directory, kept: 1" in "\n".join(
        findings.describe()
    )
    assert Path(second.post.image or "").read_bytes() == png("blue")
    with pytest.raises(MMCoTError, match=r"E102.*7\.webp: cannot be read: it is no folder"):
        read_corpus([path], Findings(), ReadSettings(pictures=tmp_path / "7.webp"))


TABLES = {
    "a.csv": (b'id,text,note\n7,"Anna, in\nOslo",x\n', {}),
    "b.csv": (b'id;Text\r\n7;"Anna, in\nOslo"\r\n', {}),
    "c.tsv": ('id\ttext\n7\t"Anna, in\nOslo"\n'.encode("utf-16"), {}),
    "d.csv": (b'nr|body\n7|"Anna, in\nOslo"\n', {"text_column": "body", "id_column": "nr"}),
    "excel.csv": (b'sep=;\r\nId;Text\r\n7;"Anna, in\nOslo"\r\n', {}),
    "e.csv": (b'x#text\n7#"Anna, in\nOslo"\n', {"delimiter": "#", "id_column": "x"}),
}


@pytest.mark.parametrize("name", TABLES)
def test_csv(tmp_path: Path, name: str) -> None:
    content, options = TABLES[name]
    (tmp_path / name).write_bytes(content)
    (row,) = read(tmp_path / name, **options)
    assert (row.post.id, row.post.text, row.post.entities) == ("7", "Anna, in\nOslo", None)


def test_what_is_wrong_with_a_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    cases: list[tuple[bytes, dict[str, Any], str]] = [
        (
            b"name,body\n1,Anna\n",
            {},
            r"no column 'text' .* name, body\. .*--text-column.*--delimiter",
        ),
        (b"text\nAnna\n", {"text_column": "body"}, r"no column 'body'"),
        (b"text\nAnna\n", {"id_column": "nr"}, r"no column 'nr' .*--id-column"),
        ("text\nMünchen, schön\n".encode("cp1252"), {}, r"not text in UTF-8 .*--encoding"),
        ("text\nAnna\n".encode("utf-16-le"), {}, r"not text in UTF-8 .*--encoding"),
        (b"text\nAnna\n", {"encoding": "klingon"}, r"--encoding klingon: unknown"),
        ("text\nMünchen\n".encode(), {"encoding": "ascii"}, r"not text in ascii"),
        (b"text,x\nAnna\n", {}, r"line 2: the row has 1 cells, 'Anna'\. Expected: 2 cells"),
        (b'text,x\n"Anna,1\nBo,2\n', {}, r"line 2: not CSV .* up to line 3"),
        (b"text,x\n,1\n", {}, r"line 2: text is ''\. Expected: a text"),
        (b"", {}, r"no column 'text' .* Its columns: none"),
        (b"text,text\na,b\n", {}, r"line 1: the header names the column 'text' twice"),
        (b"text||x\nAnna||1\n", {"delimiter": "||"}, r"--delimiter is '\|\|'\. Allowed: one char"),
        (b"text\nAnna\n", {"encoding": "base64"}, r"--encoding base64: unknown"),
        (b"text,split\nAnna,eval\n", {}, r"line 2: split is 'eval'\. Expected: train, .*--split"),
    ]
    for content, options, problem in cases:
        path.write_bytes(content)
        with pytest.raises(MMCoTError, match=problem):
            read(path, **options)
    path.write_bytes("text\nMünchen\n".encode("cp1252"))
    assert read(path, encoding="cp1252")[0].post.text == "München"
    path.write_bytes(b"text,x\nAnna\nBo,1\n,2\n")
    findings = Findings(skip_invalid=True)
    assert [row.post.text for row in read_corpus([path], findings)] == ["Bo"]
    assert len(findings.skipped) == 2


def test_a_text_that_is_repeated_very_often_costs_no_more() -> None:
    class Counted(dict[str, int]):
        looked = 0

        def __contains__(self, name: object) -> bool:
            self.looked += 1
            return super().__contains__(name)

    ids = Counted()
    assert [make_unique_id("ok", ids) for _ in range(500)][-1] == "ok-500"
    assert ids.looked < 2000


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"tokens": 5}, "tokens is 5"),
        ({"tokens": ["a"], "tags": 5}, "tags is 5, for 1 tokens"),
        ({"tokens": ["a", "b"], "tags": ["PER", "O"]}, "tags is .*, among them 'PER'"),
        (
            {**ANNOTATED, "relations": [{"head": 0, "tail": 1, "label": "None"}]},
            "a relation is lab",
        ),
        (
            {"data": {"text": TEXT}, "annotations": [{"result": [PAST_THE_END]}]},
            r"entities\[0\] .* ends past the text's",
        ),
        (["Anna", {"entities": 5}], "entities is 5"),
        (
            {**ANNOTATED, "relations": [{"head": [[0]], "tail": [19, 23], "label": "in"}]},
            r"a relation joins \[\[0\]\]",
        ),
    ],
)
def test_values_of_another_type_are_named(
    jsonl: Callable[..., Path], row: object, problem: str
) -> None:
    with pytest.raises(MMCoTError, match=f"line 1: {problem}"):
        read(jsonl("rows.jsonl", row))


def test_a_row_without_tags_is_not_labelled(jsonl: Callable[..., Path]) -> None:
    (row,) = read(jsonl("rows.jsonl", {"tokens": ["Anna"], "ner_tags": None}))
    assert (row.post.text, row.post.entities) == ("Anna", None)


def test_a_damaged_parquet_file_is_an_error(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [f"text {i}" for i in range(3000)]}), path)
    content = path.read_bytes()
    path.write_bytes(content[:9] + bytes(1000) + content[1009:])
    with pytest.raises(MMCoTError, match="cannot be read"):
        read(path)


def test_parquet_values_that_python_cannot_hold(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    times, days = pyarrow.array([1, 2], pyarrow.timestamp("ns")), pyarrow.array([10**8] * 2)
    offsets, content = b"\0\0\0\0\2\0\0\0\4\0\0\0", b"\xff\xfebo"
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(content)]
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 2, buffers)
    columns = {"when": times, "day": days.cast("int32").cast("date32"), "note": broken}
    parquet.write_table(pyarrow.table({"text": ["Anna", "Bo"], **columns}), path)
    assert [row.post.text for row in read(path)] == ["Anna", "Bo"]
    parquet.write_table(pyarrow.table({"text": broken}), path)
    with pytest.raises(MMCoTError, match="row 1: 0xff is not UTF-8"):
        read(path)
    assert [row.post.text for row in read_corpus([path], Findings(skip_invalid=True))] == ["bo"]


def test_plain_texts_have_stable_ids(tmp_path: Path, jsonl: Callable[..., Path]) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffAnna in Oslo\r\n\r\n  Bo  \r\nAnna in Oslo".encode())
    rows = read(path)
    assert [row.post.text for row in rows] == ["Anna in Oslo", "Bo", "Anna in Oslo"]
    same = read(jsonl("texts.jsonl", {"text": "Bo"}, {"text": "Anna in Oslo"}))
    assert [row.post.id for row in same] == [rows[1].post.id, rows[0].post.id]
    assert rows[2].post.id == f"{rows[0].post.id}-2"
    assert all(row.post.entities is None for row in rows)


def test_pictures_of_one_name_in_several_folders(
    tmp_path: Path, jsonl: Callable[..., Path]
) -> None:
    for name in ("a", "b"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "1.png").write_bytes(png())
    rows = [{"id": str(i), "text": "t", "image": x} for i, x in enumerate(("b/1.jpg", "c/1.png"))]
    findings = Findings()
    read_as = ReadSettings(pictures=tmp_path / "all")
    found = read_corpus([jsonl("posts.jsonl", *rows)], findings, read_as)
    images = [row.post.image for row in found]
    assert images == [str(tmp_path / "all" / name / "1.png") for name in "ba"]
    ((words, places),) = findings.changed.items()
    assert "several files have the name of" in words and places[0].startswith("1: ")


def test_rows_that_a_stray_quote_joins_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tid\n"Hello\t1\nfoo\t2\nbar"\t3\nbaz\t4\n', "utf-8")
    findings = Findings()
    assert len(read_corpus([tmp_path / "a.tsv"], findings)) == 2
    ((words, places),) = findings.changed.items()
    assert "joins rows" in words and places == [f"{tmp_path / 'a.tsv'}, line 2"]


def test_lists_and_labels_that_are_not_read_are_said(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    post = {"id": "a", "text": "Anna", "entities": []}
    path.write_text(json.dumps({"train": [post], "test": [post]}), "utf-8")
    with pytest.raises(MMCoTError, match="it holds several lists: train, test"):
        read_corpus([path], Findings())
    value = {"start": 0, "end": 4, "text": "Anna", "labels": ["PER", "ORG"]}
    path.write_text(json.dumps([{"id": 1, "text": "Anna", "label": [value]}]), "utf-8")
    nlp, findings = spacy.blank("en"), Findings()
    doc = nlp("Anna")
    doc.spans["sc"] = [doc[0:1]]
    write_docs(tmp_path / "spans.spacy", [doc])
    read_corpus([path, tmp_path / "spans.spacy"], findings)
    assert [len(places) for places in (findings.lost | findings.changed).values()] == [1, 1]
    assert "document 0: sc" in "\n".join(findings.describe())


def test_pictures_of_hugging_face_datasets(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [
        {"bytes": png(), "path": None},
        {"bytes": None, "path": "b.png"},
        {"bytes": b"no picture", "path": "c.png"},
        None,
    ]
    path, findings = tmp_path / "train.parquet", Findings()
    parquet.write_table(pyarrow.table({"text": list("abcd"), "image": images}), path)
    rows = read_corpus([path], findings, ReadSettings(extracted=tmp_path / "out"))
    first, *others = (row.post.image for row in rows)
    assert Path(first or "").parent == tmp_path / "out" and Path(first or "").suffix == ".png"
    assert Path(first or "").read_bytes() == png()
    assert others == [str(tmp_path / "b.png"), None, None]
    report = "\n".join(findings.describe())
    assert "pictures in the file that cannot be read: 1" in report and "row 3" in report
    assert "posts whose picture is not there: 1" in report and "not read" not in report


def test_hugging_face_datasets_and_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    sequence = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
    features = {
        "tokens": {"feature": {"dtype": "string"}, "_type": "Sequence"},
        "ner_tags": sequence,
    }
    info = json.dumps({"info": {"features": features}}).encode()
    table = pyarrow.table({"id": ["0"], "tokens": [TEXT.split()], "ner_tags": [[1, 2, 0, 0, 3]]})
    table = table.replace_schema_metadata({b"huggingface": info})
    folder = tmp_path / "conll2003"
    for split in ("train", "validation"):
        (folder / split).mkdir(parents=True)
        for name in ("data-00000-of-00001.arrow", "cache-123.arrow"):
            with pyarrow.ipc.new_stream(str(folder / split / name), table.schema) as writer:
                writer.write_table(table)
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    rows = read(folder)
    assert [(row.post.split, spans(row.post)) for row in rows] == [
        ("train", [PER, LOC]),
        ("dev", [PER, LOC]),
    ]
    parquet.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    (row,) = read(tmp_path / "test-00000-of-00001.parquet")
    assert (row.post.split, spans(row.post)) == ("test", [PER, LOC])
    parquet.write_table(table.replace_schema_metadata(None), tmp_path / "bare.parquet")
    with pytest.raises(MMCoTError, match=r"row 1: ner_tags is \[1, 2, 0, 0, 3\], for 5 tokens"):
        read(tmp_path / "bare.parquet")
    both = table.append_column("text", pyarrow.array([TEXT]))
    parquet.write_table(both, tmp_path / "both.parquet")
    (row,) = read(tmp_path / "both.parquet")
    assert (row.post.text, spans(row.post)) == (TEXT, [PER, LOC])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MMCoTError, match=r"broken\.parquet: cannot be read"):
        read(tmp_path / "broken.parquet")


def test_the_format_is_told_by_the_first_row_with_labels(jsonl: Callable[..., Path]) -> None:
    bare = {"id": 1, "text": "nobody"}
    for kind, row in {"doccano": {**bare, "label": [[0, 6, "PER"]]}, "prodigy": TASK}.items():
        path = jsonl("first.jsonl", bare, {**bare, "entities": []}, row)
        assert guess_format(path) == kind
        assert len(read(path)) == 3
    posts = jsonl("posts.jsonl", {"id": "a", "text": "b"}, {"id": "b", "text": "b", "spans": "x"})
    with pytest.raises(MMCoTError, match="field spans is unknown"):
        read(posts)


@pytest.mark.parametrize("name", ["entites", "Entities", "imgae", "captoin", "relation", "domian"])
def test_a_misspelt_field_of_a_post_is_no_column_of_a_table(
    jsonl: Callable[..., Path], name: str
) -> None:
    path = jsonl("corpus.jsonl", {"id": "a", "text": TEXT, name: []})
    with pytest.raises(MMCoTError, match=f"line 1: field {name} is unknown"):
        read_corpus([path], Findings())
    own = {"lang": "en", "score": 1, "emotion": "joy", "action": "x", "source": "x", "main": 1}
    table = jsonl("table.jsonl", {"id": "a", "text": TEXT, name: [], **own})
    assert guess_format(table) == "table"
    for column in own:
        assert guess_format(jsonl("table.jsonl", {"id": "a", "text": "b", column: 1})) == "table"
    assert len(read_corpus([path], Findings(), ReadSettings("table"))) == 1


def test_json_that_is_none_of_these(jsonl: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(
        MMCoTError, match=r"line 1: the row has no 'text', only 'body'\..*--text-co"
    ):
        read(jsonl("a.jsonl", {"body": "Anna"}))
    assert read(tmp_path / "a.jsonl", text_column="body")[0].post.text == "Anna"
    cases = {
        "[1]": r"row 1: the row is 1",
        "nothing": r"the whole file: not JSON",
        "3": r"the whole file: it is 3",
        '[{"id": 0, "paragraphs": []}]': r"\[E109\] .*python -m spacy convert",
    }
    for content, problem in cases.items():
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(MMCoTError, match=problem):
            read(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    assert read(tmp_path / "x.json") == []
    (tmp_path / "x.json").write_text('{"text": "Anna"}\n{"text": "Bo"}\n')  # JSON Lines
    assert [row.post.text for row in read(tmp_path / "x.json")] == ["Anna", "Bo"]


def test_label_studio_without_labels_is_not_labelled(tmp_path: Path) -> None:
    choice = {"id": "x", "type": "choices", "value": {"choices": ["good"]}}
    tasks = [
        {"id": i, "data": {"text": TEXT}, "annotations": [{"result": found}]}
        for i, found in enumerate([[choice], []])
    ]
    (tmp_path / "x.json").write_text(json.dumps(tasks))
    assert [spans(row.post) for row in read(tmp_path / "x.json")] == [None, []]


def test_columns_that_are_not_read_are_named(jsonl: Callable[..., Path]) -> None:
    findings = Findings()
    path = jsonl("table.jsonl", ANNOTATED)
    read_corpus([path], findings)
    assert list(findings.changed.values()) == [[f"{path}: confidence, mood"]]


def test_a_table_keeps_what_is_labelled_in_part(jsonl: Callable[..., Path]) -> None:
    part = {"missing": [[10, 15]], "rejected": [{"start": 10, "end": 15, "label": "X"}]}
    (row,) = read(jsonl("table.jsonl", {**ANNOTATED, "id": 7, **part, "pairs": [[0, 1]]}))
    found = row.post.model_dump(include={"pairs", *part})
    assert found == {"missing": [(10, 15)], "rejected": part["rejected"], "pairs": [(0, 1)]}


def test_a_doc_that_is_labelled_in_part(tmp_path: Path) -> None:
    nlp = NLP
    doc = nlp(TEXT)
    doc.set_ents([doc.char_span(*PER[:2], "PER")], default="missing")
    bare = nlp("nobody looked")
    DocBin(docs=[doc, bare]).to_disk(tmp_path / "train.spacy")
    first, second = read(tmp_path)
    assert spans(first.post) == [PER]
    assert first.post.missing == [(10, 15), (16, 18), (19, 23)]
    assert second.post.entities is None


WORDS = st.lists(st.text("abÄ🎉#'@", min_size=1, max_size=4), min_size=1, max_size=6)


@st.composite
def make_posts(draw: st.DrawFn) -> Post:
    """A post whose entities are words of its text."""
    words = draw(WORDS)
    text = " ".join(words)
    starts = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
    ends = [start + len(word) for start, word in zip(starts, words, strict=True)]
    labels = draw(st.lists(st.sampled_from(["PER", "LOC", ""]), min_size=6, max_size=6))
    places = list(zip(starts, ends, labels, strict=False))
    entities = [Entity(start=s, end=e, label=x) for s, e, x in places if x]
    pairs = [(h, t) for h in range(len(entities)) for t in range(len(entities)) if h != t]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    fields: dict[str, Any] = {}
    if draw(st.booleans()):
        fields["relations"] = [PostRelation(head=h, tail=t, label="in") for h, t in chosen]
    elif entities and draw(st.booleans()):
        fields["rejected"] = [entities[0].model_copy(update={"label": "ORG"})]
        open_words = [(s, e) for s, e, x in places if not x]
        fields["missing"] = open_words or None
    return Post(id="x", text=text, entities=entities, **fields)


@settings(max_examples=80, deadline=None)
@given(post=make_posts(), tokenizer=st.sampled_from(["spacy", "whitespace"]))
def test_posts_survive_every_format_that_is_written(
    tmp_path_factory: pytest.TempPathFactory, post: Post, tokenizer: Any
) -> None:
    folder = tmp_path_factory.mktemp("posts")
    write_posts(folder / "posts.jsonl", [post])
    (row,) = read(folder / "posts.jsonl")
    assert row.post == post
    write_docs(folder / "train.spacy", [make_doc(NLP, post, tokenizer=tokenizer)])
    (row,) = read(folder / "train.spacy")
    found = row.post
    # Missing words may come back as the tokens that they were cut into.
    covered = {i for start, end in found.missing or () for i in range(start, end)}
    assert covered == {i for start, end in post.missing or () for i in range(start, end)}
    assert found.model_copy(update={"missing": None}) == post.model_copy(update={"missing": None})


@settings(max_examples=60, deadline=None)
@given(post=make_posts(), kind=st.sampled_from(["prodigy", "doccano", "label-studio"]))
def test_tasks_for_annotation_tools_come_back(
    tmp_path_factory: pytest.TempPathFactory, post: Post, kind: Any
) -> None:
    post = post.model_copy(update={"missing": None, "rejected": None})
    review = Review(post, NLP(post.text), [], {})
    scheme = Scheme(entities={"PER": "people"})
    folder = tmp_path_factory.mktemp("tasks")
    path = folder / ("tasks.json" if kind == "label-studio" else "tasks.jsonl")
    content = format_reviews([review], kind, scheme, folder)
    if kind == "label-studio":  # what a person accepts is an annotation
        (task,) = json.loads(content)
        task["annotations"] = task.pop("predictions")
        content = json.dumps([task])
    path.write_text(content, encoding="utf-8")
    # An empty task says the same in every format.
    assert not post.entities or guess_format(path) == kind
    (row,) = read(path)
    assert (row.post.id, row.post.text, row.post.entities) == ("x", post.text, post.entities)
    found = {(r.head, r.tail, r.label) for r in row.post.relations or ()}
    assert found == {(r.head, r.tail, r.label) for r in post.relations or ()}
