"""The way of a new user, as the README has it: a wheel in a fresh virtual environment, a table of
texts without labels, an endpoint, the student's first entities, and what follows. No clone is at
hand.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.llm_server import LLMServer, quoted, sensible_answer, user_text
from tests.test_packaging import PACKAGE, ROOT, build
from tests.test_project import make_environment

PRODUCTS = ["Nova 3", "Tessel Pro", "Kite Router", "Orbit Mini", "PrintJet 400", "AquaSync"]
PRODUCTS += ["Lumen Desk", "Halo Watch", "Vento X", "Quill Pad", "Ember One", "Drift Cam"]
FIRST = ["Maya", "Jonas", "Priya", "Tom", "Elena", "Ravi", "Sofia", "Hugo", "Amara", "Ken"]
LAST = ["Keller", "Okafor", "Nguyen", "Silva", "Brandt", "Mehta", "Rossi", "Larsen", "Cole"]
LINES = [
    "My {product} stopped charging after the update, says {person}.",
    "{person} cannot pair the {product} with a phone.",
    "Please tell {person} that the {product} was replaced yesterday.",
    "The {product} shows error 14; I spoke to {person} about it.",
    "Hello, {person} here. Where is the manual of the {product}?",
    "Refund for the {product} was promised by {person} last week.",
    "After two days the {product} is still at {person}'s desk.",
]


def make_tickets(count: int) -> dict[str, dict[str, Any]]:
    """Texts, each with what an LLM concludes on it."""
    draw = random.Random(0)
    tickets: dict[str, dict[str, Any]] = {}
    while len(tickets) < count:
        product = draw.choice(PRODUCTS)
        person = f"{draw.choice(FIRST)} {draw.choice(LAST)}"
        entities = [("PRODUCT", product), ("PERSON", person)]
        tickets[draw.choice(LINES).format(product=product, person=person)] = {
            "reasoning": "A device and a person are named.",
            "entities": [{"mention": m, "label": x, "sure": "high"} for x, m in entities],
            "relations": [],
        }
    return tickets


def write_table(path: Path, texts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])


class User:
    """Runs commands in a folder with nothing but the environment's programs, and times them."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self.python, self.commands = folder, python, list[tuple[str, float]]()

    def run(self, *command: object, **environment: str) -> str:
        words = [str(word) for word in command]
        started = time.monotonic()
        path = f"{self.python.parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
        done = subprocess.run(
            [self.python.parent / words[0], *words[1:]],
            cwd=self.folder,
            env={"PATH": path, "HOME": str(self.folder), "OPENAI_API_KEY": "none", **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        self.commands.append((" ".join(words), time.monotonic() - started))
        return done.stdout


def build_wheel(folder: Path) -> Path:
    source = folder / "source"
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, source / PACKAGE.name, ignore=leave_out)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return build("wheel", source, folder / "wheel")


@pytest.mark.slow
def test_the_commands_of_the_readme_follow_from_each_other(tmp_path: Path) -> None:
    """All but `pip install`, which the environment stands for; trainings are short. Of the demo,
    which has the steps of any labelled project, the first alone."""
    home = tmp_path / "home"
    home.mkdir()
    tickets = make_tickets(200)
    write_table(home / "tickets.csv", tickets)
    posts = [
        {
            "text": text,
            "entities": [
                {"start": text.index(m), "end": text.index(m) + len(m), "label": label}
                for m, label in ((e["mention"], e["label"]) for e in said["entities"])
            ],
        }
        for text, said in islice(tickets.items(), 80)
    ]
    (home / "annotations.jsonl").write_text("".join(f"{json.dumps(post)}\n" for post in posts))
    user = User(home, make_environment(tmp_path / "environment"))
    user.run(*("python", "-m", "pip", "install", "--quiet", "--no-deps"), build_wheel(tmp_path))
    steps = {
        "tickets": {"student_steps": 80},
        "news": {"teacher_steps": 20, "student_steps": 20, "warmup_steps": 2},
    }

    def reply(body: dict[str, Any]) -> tuple[int, str]:
        if '"sure"' in user_text(body):
            return 200, json.dumps(tickets[quoted(body, "post")])
        return 200, sensible_answer(body)

    with LLMServer() as server:
        server.reply = reply
        done = []
        exported: dict[str, str] = {}
        for command in list_commands((ROOT / "README.md").read_text("utf-8")):
            words = shlex.split(command.replace("http://localhost:8000/v1", server.url), True)
            if words[0] == "export":
                exported |= dict(word.split("=", 1) for word in words[1:])
                continue
            if words[0] == "cd":
                user.folder = (user.folder / words[1]).resolve()
                assert user.folder.is_dir(), command
                continue
            if words[-3:] == ["run", "all", "demo"]:
                words[-2] = "convert"
            elif " run all " in command:
                given = steps[words[-1]]
                words += [w for k, v in given.items() for w in (f"--vars.{k}", str(v))]
            user.run(*words, OMP_NUM_THREADS="1", **exported)
            done.append(words[1 if words[0] == "spacy-mmcot" else -1])
    for command, seconds in user.commands:
        print(f"{seconds:6.1f} s  {command}")
    assert list((home / "tickets" / "packages").glob("*/dist/en_tickets-*.whl"))
    code = (
        "import spacy; nlp = spacy.load('../tickets/training/student/model-best'); "
        "print(*nlp('Priya Cole asked when her Halo Watch comes back').ents, sep='; ')"
    )
    assert user.run("python", "-c", code).strip() == "Priya Cole; Halo Watch"
    assert len(done) > 10
    made = (
        "tickets/review.html",
        "tickets/found.csv",
        "tickets/training/student/exported/meta.json",
    )
    for path in (
        *made,
        "news/report/index.html",
        "news/metrics/dev.jsonl",
        "demo/corpus/posts.jsonl",
    ):
        assert (home / path).is_file(), path
    with (home / "tickets" / "found.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(tickets)


def list_commands(page: str) -> list[str]:
    """The commands of a page before "Develop" that follow an installation."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.split("## Develop")[0], re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if not line.startswith("pip ")]
