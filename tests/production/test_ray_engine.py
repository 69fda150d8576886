"""The same jobs on a Ray cluster: two real nodes of one CPU each, on this machine."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import spacy
import toy
from click.testing import Result
from made_tables import read_jsonl, rows, write_jsonl
from spacy.tokens import DocBin

from spacy_mmcot.distillation.soft_labels import get_soft_labels, get_soft_tags

Command = Callable[..., Result]
pytestmark = pytest.mark.slow


class Nodes:
    """A cluster of nodes with one CPU each, none on the head."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.workers = [self.cluster.add_node(num_cpus=1) for _ in range(2)]
        self.cluster.wait_for_nodes()

    def lose_one(self) -> None:
        self.cluster.remove_node(self.workers.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    # A busy machine takes its time to start three of them.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")
    nodes = Nodes()
    ray.init(address=nodes.cluster.address, logging_level="warning", log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.cluster.shutdown()


def test_annotate(nodes: Nodes, annotate: Command, tmp_path: Path) -> None:
    values = [*rows(50), {"text": 1}]
    source = write_jsonl(tmp_path / "in.jsonl", values)
    assert annotate(source, "-o", tmp_path / "local.jsonl", "--chunk", 8).exit_code == 0
    options = ("--chunk", 8, "--engine", "ray")
    result = annotate(source, "-o", tmp_path / "ray.jsonl", *options)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "51 rows, 1 rejected" in result.output
    local, shared = (tmp_path / name for name in ("local.jsonl", "ray.jsonl"))
    assert shared.read_bytes() == local.read_bytes()
    (reject,) = read_jsonl(tmp_path / "ray.jsonl.rejected.jsonl")
    assert reject["row"] == 51


def test_a_job_that_began_here_goes_on_there(
    nodes: Nodes, annotate: Command, tmp_path: Path
) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(12)), tmp_path / "out.jsonl"
    assert annotate(source, "-o", output, "--chunk", 5).exit_code == 0
    whole = output.read_bytes()
    manifest = tmp_path / "out.jsonl.manifest.json"
    job = json.loads(manifest.read_text("utf-8"))["job"]
    manifest.write_text(json.dumps({"job": job, "done": None}), "utf-8")
    output.unlink()
    (tmp_path / "out.jsonl.parts").mkdir()
    part = tmp_path / "out.jsonl.parts" / "part-000001.jsonl"
    part.write_bytes(b"".join(whole.splitlines(keepends=True)[5:10]))
    result = annotate(source, "-o", output, "--chunk", 5, "--engine", "ray", "--workers", 1)
    assert "12 rows, 0 rejected, 5 were done already" in result.output
    assert output.read_bytes() == whole


def test_teach(nodes: Nodes, command: Command, model: str, tmp_path: Path) -> None:
    docs = [eg.reference for eg in toy.examples(spacy.blank("en"))]
    source = tmp_path / "in.spacy"
    DocBin(docs=docs, store_user_data=True).to_disk(source)
    taught = []
    for name, options in (("local", ()), ("ray", ("--engine", "ray", "--chunk", 2))):
        output = tmp_path / f"{name}.spacy"
        result = command("teach", model, source, "--with", model, "-o", output, *options)
        assert result.exit_code == 0, (result.output, result.exception)
        assert f"{len(docs)} docs taught" in result.output
        taught.append(list(DocBin().from_disk(output).get_docs(spacy.blank("en").vocab)))
    for doc, other in zip(*taught, strict=True):
        assert doc.text == other.text
        assert toy.found([doc]) == toy.found([other])
        tags = get_soft_tags(doc)
        assert get_soft_tags(other) == tags
        assert get_soft_labels(other, tags) == pytest.approx(get_soft_labels(doc, tags), abs=2e-3)
    assert {path.suffix for path in tmp_path.iterdir()} == {".spacy"}


def test_what_the_user_can_put_right_is_one_line(
    nodes: Nodes, annotate: Command, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "Anna", "entities": []}])
    result = annotate(source, "-o", tmp_path / "out.jsonl", "--engine", "ray")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()[-1:]
    assert line.startswith("✘ [E747]")


def test_a_node_that_is_lost(nodes: Nodes, annotate: Command, tmp_path: Path) -> None:
    """What it was working on is done by the other one."""
    source, output = write_jsonl(tmp_path / "in.jsonl", rows(4000)), tmp_path / "out.jsonl"

    def lose_one() -> None:
        while not list(tmp_path.glob("out.jsonl.parts/part-00000[5-9].jsonl")):
            time.sleep(0.01)
        nodes.lose_one()

    loser = threading.Thread(target=lose_one, daemon=True)
    loser.start()
    result = annotate(source, "-o", output, "--chunk", 20, "--engine", "ray")
    assert result.exit_code == 0, (result.output, result.exception)
    loser.join(60)
    assert len(nodes.workers) == 1
    assert [row["n"] for row in read_jsonl(output)] == list(range(4000))
