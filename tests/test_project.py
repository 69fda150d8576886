"""The project files: what `spacy project run` reads, and that their steps fit together."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from spacy.util import load_config
from weasel.util.config import load_project_config

from tests.llm_server import LLMServer, quoted

Command = Callable[..., Result]
ROOT = Path(__file__).parents[1]
# Folders of a project that only its runs write to.
MADE = ("corpus/", "training/", "metrics/", "packages/", "report/", "models/")
# What a workflow of the studies finds after the demo, or outside.
GIVEN = ("../corpus/", "/data/")


def read_project(folder: str) -> dict[str, Any]:
    return load_project_config(ROOT / folder, overrides={"vars.data": "/data"} if folder else {})


@pytest.fixture(params=["", "research"])
def folder(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_demo_is_the_only_workflow_of_the_root_and_runs_no_study() -> None:
    project = read_project("")
    assert list(project["workflows"]) == ["all"]
    text = (ROOT / "project.yml").read_text("utf-8")
    assert len(text.splitlines()) <= 250
    assert not re.search(r"\b(tests|research|benchmarks)[/. ]", text)


def test_workflows_name_commands_and_every_command_serves_one(folder: str) -> None:
    project = read_project(folder)
    steps = {step for workflow in project["workflows"].values() for step in workflow}
    assert steps == {command["name"] for command in project["commands"]}


def test_every_dependency_is_there_or_made_before(folder: str) -> None:
    project = read_project(folder)
    commands = {command["name"]: command for command in project["commands"]}
    for name, workflow in project["workflows"].items():
        made: set[str] = set()
        for step in workflow:
            for path in commands[step]["deps"]:
                if f"{path}/".startswith(MADE):
                    assert path in made, f"{name}: {step} needs {path}, which no earlier step makes"
                elif not path.startswith(GIVEN):
                    assert (ROOT / folder / path).exists(), f"{step} needs {path}"
            made.update(commands[step].get("outputs", ()))


def list_words(command: dict[str, Any]) -> list[str]:
    """The words of a command's script, those of commands in quotes too."""
    words = [word for line in command["script"] for word in shlex.split(line)]
    return [part for word in words for part in shlex.split(word)]


def test_what_a_step_reads_is_a_dependency_or_made_by_itself(folder: str) -> None:
    """What a step reads and does not list would not run it again when it changes."""
    for command in read_project(folder)["commands"]:
        listed = {*command["deps"], *command.get("outputs", ())}
        words = list_words(command)
        written = {
            words[i + 1] for i, word in enumerate(words) if word in ("--output", "--answers-out")
        }
        for word in words:
            if word.startswith(("configs/", "scripts/", "assets/", "plans/", *GIVEN)):
                inside = any(path.startswith(f"{word}/") for path in listed)
                assert word in listed | written or inside, f"{command['name']} reads {word}"


def test_outputs_of_the_demo_are_named_in_its_scripts() -> None:
    for command in read_project("")["commands"]:
        words = list_words(command)
        for path in command["outputs"]:
            parents = {str(parent) for parent in Path(path).parents}
            written = any(f"{word}/".startswith(f"{path}/") for word in words)
            assert written or parents & set(words), path


def test_the_project_file_of_the_repository_is_the_demo_s_of_init(
    tmp_path: Path, command: Command
) -> None:
    done = command("init", tmp_path / "demo", "--demo")
    assert done.exit_code == 0, done.output
    cure = "spacy-mmcot init NEW --demo, then copy NEW/project.yml here"
    made = (tmp_path / "demo" / "project.yml").read_text("utf-8")
    assert made == (ROOT / "project.yml").read_text("utf-8"), cure
    for folder in ("configs", "assets"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file():
                copy = tmp_path / "demo" / path.relative_to(ROOT)
                assert copy.read_bytes() == path.read_bytes()


POSTS = [{"id": f"t{i}", "text": f"Ada {i} works at Acme"} for i in range(8)]
LABELS = [{"start": 0, "end": 3, "label": "PER"}, {"start": 15, "end": 19, "label": "ORG"}]
WORKS = [{"head": 0, "tail": 1, "label": "works_at"}]


def init_project(folder: Path, command: Command, posts: list[dict[str, Any]], *options: str) -> str:
    """Make a project on posts in `folder`, which must work. Returns what `init` prints."""
    folder.mkdir(exist_ok=True)
    lines = "".join(f"{json.dumps(post)}\n" for post in posts)
    (folder / "texts.jsonl").write_text(lines, "utf-8")
    done = command("init", folder, "--data", folder / "texts.jsonl", *options)
    assert done.exit_code == 0, done.output
    return done.stdout


CASES = {
    "no labels": ([], ["--label", "PER"], {"teacher", "augment"}, False),
    "labels": ([{"entities": LABELS}], [], set(), False),
    "relations": ([{"entities": LABELS, "relations": WORKS}], [], set(), True),
    "entities alone": (
        [{"entities": LABELS, "relations": WORKS}],
        ["--no-relations"],
        set(),
        False,
    ),
    "held out": ([{}, {"split": "dev"}, {"split": "test"}], ["--label", "PER"], {"teacher"}, False),
    "unlabelled": ([{"entities": LABELS}, {"split": "unlabelled"}], [], set(), False),
    "pictures": ([{"entities": LABELS, "image": "a.png"}], [], set(), False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_steps_of_a_project_fit_its_texts(tmp_path: Path, command: Command, case: str) -> None:
    more, options, missing, relations = CASES[case]
    posts = [{**post, **(more[i % len(more)] if more else {})} for i, post in enumerate(POSTS)]
    init_project(tmp_path, command, posts, *options)
    project = load_project_config(tmp_path, overrides={"vars.gpu": 0})
    steps = {step["name"]: step for step in project["commands"]}
    assert list(steps) == project["workflows"]["all"]
    assert not missing & set(steps)
    assert ("mmcot_rel" in project["vars"]["pipeline"]) == relations
    splits = {post.get("split", "train") for post in posts}
    assert ("--dev" in list_words(steps["convert"])) == ("dev" not in splits)
    given = "corpus/gold/unlabelled.spacy" in steps["teach"]["deps"]
    assert given == ("unlabelled" in splits)
    vision = {"@architectures": "spacy_mmcot.PackagedVision.v1"} if case == "pictures" else None
    for name in ("student", "teacher"):
        config = load_config(tmp_path / "configs" / f"{name}.cfg")
        assert config["components"]["transformer"]["model"]["vision"] == vision
        pooling = config["components"]["mmcot_ner"]["model"]["tok2vec"]["pooling"]["@layers"]
        is_mean = name == "student" and "teacher" in steps
        assert pooling == f"reduce_{'mean' if is_mean else 'first'}.v1"
    words = [word for step in steps.values() for word in list_words(step)]
    loaded = sum("model-best" in w and not w.startswith("packages") for w in words)
    assert loaded > 1
    # What loads or trains a pipeline runs on the GPU; packaging and conclusions need none.
    for line in (line for step in steps.values() for line in step["script"]):
        verb = shlex.split(line)[1]
        if verb == "report" or "spacy train" in line or "teach training" in line:
            assert "--gpu-id 0" in line, line


def test_how_the_texts_are_read_stands_in_the_project(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{i};Grüße von Ada {i}\n" for i in range(30))
    (tmp_path / "in.csv").write_bytes(f"Nr;Die Nachricht\n{rows}".encode("cp1252"))
    given = ["init", tmp_path / "project", "--data", tmp_path / "in.csv", "--label", "PER"]
    refused = command(*given)
    assert refused.exit_code == 1 and "--encoding" in refused.stderr
    refused = command(*given, "--encoding", "cp1252")
    assert refused.exit_code == 1 and "--text-column" in refused.stderr
    options = ["--text-column", "Die Nachricht", "--id-column", "Nr", "--encoding", "cp1252"]
    done = command(*given, *options, "--delimiter", ";")
    assert done.exit_code == 0, done.output
    project = load_project_config(tmp_path / "project")
    (script,) = project["commands"][0]["script"]
    monkeypatch.chdir(tmp_path / "project")
    words = [
        word for word in shlex.split(script)[1:] if word not in ("--reviewed", "reviewed.jsonl")
    ]
    done = command(*words)
    assert done.exit_code == 0, done.output
    lines = Path("corpus/posts.jsonl").read_text("utf-8").splitlines()
    posts = [json.loads(line) for line in lines]
    assert {post["id"]: post["text"] for post in posts}["7"] == "Grüße von Ada 7"
    assert {post["split"] for post in posts} == {"train", "dev", "test"}


def test_init_leaves_the_files_of_the_folder_alone(tmp_path: Path, command: Command) -> None:
    (tmp_path / "README.md").write_text("Mine", "utf-8")
    init_project(tmp_path, command, POSTS, "--label", "PER=people", "--domain", "staff")
    assert (tmp_path / "README.md").read_text("utf-8") == "Mine"
    again = command("init", tmp_path, "--data", tmp_path / "texts.jsonl", "--label", "PER")
    assert again.exit_code == 1
    assert again.stderr.startswith("✘ [E714]")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--label", "=people"], "E715"),
        (["--label", "PER", "--relation", "knows:PER"], "E715"),
        (["--label", "PER", "--relation", "knows:PER:ORG"], "E718"),
        ([], "E716"),
        (["--label", "PER", "--lang", "zz"], "E712"),
        (["--label", "PER", "--relation", "None:PER:PER"], "E715"),
        (["--label", "PER", "--name", "my model"], "E409"),
        (["--label", "PER", "--domain", " "], "E715"),
        (["--label", "_"], "E715"),
        (["--label", "PER", "--relation", "_:PER:PER"], "E715"),
        (["--label", "PER", "--data", "it's.jsonl"], "E715"),
    ],
)
def test_wrong_options_of_init_leave_no_project(
    tmp_path: Path, command: Command, jsonl: Callable[..., Path], options: list[str], code: str
) -> None:
    data = jsonl("texts.jsonl", *POSTS)
    done = command("init", tmp_path / "new", "--data", data, *options)
    assert done.exit_code in (1, 2)
    assert done.stderr.startswith(f"✘ [{code}] ")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("option", ["--domain", "--language"])
def test_a_scheme_in_empty_words_is_not_drafted(
    tmp_path: Path, command: Command, jsonl: Callable[..., Path], option: str
) -> None:
    posts = jsonl("posts.jsonl", {**POSTS[0], "entities": LABELS})
    done = command("scheme", posts, "-o", tmp_path / "s.yml", option, " ")
    assert (done.exit_code, done.stderr[:9]) == (2, "✘ [E715] ") and option in done.stderr
    assert not (tmp_path / "s.yml").exists()


def test_what_is_no_option_is_asked_on_a_terminal(
    tmp_path: Path, jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from spacy_mmcot.cli import init
    from spacy_mmcot.cli.main import app
    from spacy_mmcot.scheme import read_scheme

    monkeypatch.setattr(init, "is_terminal", lambda: True)
    data = jsonl("texts.jsonl", *POSTS)
    answers = [data, "de", "Meldungen", "PER, FIRMA", "people", "", "y", "at:PER:FIRMA", "n", ""]
    done = CliRunner().invoke(
        app, ["init", str(tmp_path / "new")], input="".join(f"{line}\n" for line in answers)
    )
    assert done.exit_code == 0, done.output
    scheme = read_scheme(tmp_path / "new" / "scheme.yml")
    assert (scheme.language, scheme.domain) == ("German", "Meldungen")
    assert scheme.entities == {"PER": "people", "FIRMA": "firma"}
    assert scheme.relations["at"].tail == ["FIRMA"]


# Who works where, in German: a text for each name. No post has a label.
PEOPLE = ["Anna Krug", "Jonas Weber", "Mia Thoma", "Emil Hartwig", "Greta Lohse"]
HOUSES = ["Nordbank", "Klinikum Fulda", "Stadtwerke Jena", "Hansewerft"]
LINES = ["{} arbeitet bei {}.", "Seit Mai ist {} bei {} angestellt.", "{} verlässt {} im Herbst."]


@pytest.mark.slow
def test_a_project_without_labels_in_german_ends_in_a_wheel(
    tmp_path: Path, command: Command, bert_source: str
) -> None:
    posts: list[dict[str, Any]] = []
    conclusions = {}
    for i in range(24):
        person, house = PEOPLE[i % 5], HOUSES[i % 4]
        split = {8: "dev", 9: "test"}.get(i % 12, "train")
        text = LINES[i % 3].format(person, house)
        posts.append({"id": f"m{i}", "text": text, "split": split})
        entities = [("PERSON", person), ("FIRMA", house)]
        conclusions[text] = {
            "reasoning": "Er oder sie arbeitet dort.",
            "entities": [{"mention": m, "label": label, "sure": "high"} for label, m in entities],
            "relations": [
                {"head": person, "label": "angestellt_bei", "tail": house, "sure": "medium"}
            ],
        }
    folder = tmp_path / "meldungen"
    options = {
        "--lang": "de",
        "--domain": "Meldungen aus der Wirtschaft",
        "--relation": "angestellt_bei:PERSON:FIRMA=eine Person arbeitet dort",
        "--encoder": bert_source,
    }
    labels = ("--label", "PERSON=Menschen", "--label", "FIRMA=Unternehmen und Einrichtungen")
    words = [word for option in options.items() for word in option]
    init_project(folder, command, posts, *words, *labels)
    with LLMServer() as server:
        server.reply = lambda body: (200, json.dumps(conclusions[quoted(body, "post")]))
        given = ["--vars.endpoint", server.url, "--vars.student_steps", "500"]
        run_project(folder, given)
        assert run_project(folder, given).count("nothing changed") == 7
        assert server.seen()["requests"] == len(posts)
    assert (folder / "report" / "index.html").exists()
    assert not list((folder / "metrics").iterdir())  # nothing is labelled
    found = use_wheel(folder / "packages" / "de_meldungen-0.1.0" / "dist", "de_meldungen", posts)
    assert {"PERSON", "FIRMA"} & {label for doc in found for label in doc}


def use_wheel(dist: Path, package: str, posts: list[dict[str, Any]]) -> list[list[str]]:
    """The labels that a pipeline finds in each post, from its wheel in a new virtual environment,
    which has the running one's packages beside it and no network."""
    (wheel,) = dist.glob("*.whl")
    python = make_environment(dist / "environment")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    code = f"""if True:
        import json, socket, sys
        def refuse(*args, **kwargs): raise OSError("no network")
        socket.socket.connect = socket.getaddrinfo = refuse
        import spacy
        docs = spacy.load({package!r}).pipe(json.load(sys.stdin))
        print(json.dumps([[entity.label_ for entity in doc.ents] for doc in docs]))
    """
    texts = json.dumps([post["text"] for post in posts])
    run = subprocess.run([python, "-c", code], input=texts, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def make_environment(folder: Path) -> Path:
    """A virtual environment that also finds the packages of the running one. Returns its Python."""
    venv.create(folder)
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    shared = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in sorted(shared))
    (Path(own) / "shared.pth").write_text(lines, "utf-8")
    return folder / "bin" / "python"


def run_project(folder: Path, settings: list[str]) -> str:
    """Run the workflow in a folder. Returns what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["OPENAI_API_KEY"] = "none"
    command = [sys.executable, "-m", "spacy", "project", "run", "all", folder, *settings]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return run.stdout
