"""The benchmark elicit on small runs: its figures are measured and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.elicit import faults, memory, side_by_side
from tests.llm_server import FAULTS


@pytest.mark.slow
def test_runs_that_are_killed_and_resumed_lose_nothing() -> None:
    figures = faults(runs=2, posts=30, kills=2)
    assert (figures["fault_runs"], figures["questions"]) == (2, 180)
    assert figures["killed"] >= 1
    assert figures["answers_lost"] == 0
    assert figures["bought_twice"] == 0
    assert figures["stores_differ"] == 0
    # Twenty workers, two kills, two runs.
    assert figures["in_flight_at_kill"] <= 80
    assert len(figures["faults"]) > len(FAULTS) // 2


@pytest.mark.slow
def test_memory_is_measured() -> None:
    sizes = memory(posts=10, times=3)
    assert 20 < sizes["peak_mb_small"] < 1000
    assert 0.8 < sizes["memory_ratio"] < 1.5


def test_other_clients_ask_the_same() -> None:
    figures = side_by_side(requests=20)
    assert figures["seconds_spacy_mmcot"] > 0.2 and figures["seconds_openai_semaphore"] > 0.2


def test_the_command_measures_throughput_and_writes_its_figures(tmp_path: Path) -> None:
    output = tmp_path / "elicit.json"
    words = ["--requests", "60", "--latency", "0.1", "--workers", "10", "--memory", "0"]
    rest = ["elicit", *words, "--faults", "0", "--peers", "0", "--json", str(output)]
    done = CliRunner().invoke(app, rest)
    assert done.exit_code == 0, done.output
    figures = json.loads(output.read_text("utf-8"))
    assert f"throughput_ratio: {figures['throughput_ratio']}" in done.stdout
    assert figures["requests"] == 60 and figures["cpu_ms_per_request"] > 0
    assert 0 < figures["throughput_ratio"] <= 1
    assert figures["throughput_ratio"] == pytest.approx(0.6 / figures["seconds"], abs=0.02)
