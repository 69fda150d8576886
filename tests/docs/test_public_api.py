"""What `import spacy_mmcot` offers and costs, and the page that describes it."""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spacy_mmcot

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "api_reference.py"
PAGE = (ROOT / "docs" / "API.md").read_text("utf-8")


def registered() -> dict[str, str]:
    """Registered name -> module:attribute, as setup.cfg declares them."""
    setup = configparser.ConfigParser()
    setup.optionxform = str  # type: ignore[method-assign, assignment]
    setup.read(ROOT / "setup.cfg")
    found = {}
    for group, lines in setup["options.entry_points"].items():
        if group not in ("console_scripts", "spacy_cli"):
            found.update(line.split(" = ") for line in lines.strip().splitlines())
    return found


REGISTERED = registered()


def entries() -> dict[str, str]:
    """Heading -> everything up to the next heading."""
    parts = re.split(r"^#{3,4} (.+)$|^## .+$", PAGE, flags=re.MULTILINE)
    return {
        name.replace("\\", ""): text
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
        if name
    }


ENTRIES = entries()


def signature_of(entry: str) -> str:
    found = re.search(r"```text\n(.+?)\n```", entry, re.DOTALL)
    assert found is not None, entry
    return found[1]


def description_of(entry: str) -> str:
    return re.sub(r"```text\n.+?\n```", "", entry, count=1, flags=re.DOTALL).strip()


def test_the_import_is_cheap_and_each_name_is_imported_on_use() -> None:
    program = """if True:
        import sys
        before = set(sys.modules)
        import spacy_mmcot
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        assert not new & {"spacy", "torch", "thinc", "transformers", "pydantic", "numpy"}, new
        assert [name for name in sys.modules if name.startswith("spacy_mmcot.")] == []
        assert set(spacy_mmcot.__all__) <= set(dir(spacy_mmcot))
        spacy_mmcot.Post, spacy_mmcot.MMCoTError
        assert "spacy_mmcot.types" in sys.modules
        assert not {"spacy", "torch"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_public_name_exists_and_an_unknown_one_is_an_attribute_error() -> None:
    for name in spacy_mmcot.__all__:
        assert getattr(spacy_mmcot, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        spacy_mmcot.no_such_name  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    stub = Path(spacy_mmcot.__file__).with_suffix(".pyi")
    seen = {}
    for statement in ast.parse(stub.read_text("utf-8")).body:
        if isinstance(statement, ast.ImportFrom):
            # A stub exports only names that are imported as themselves.
            assert all(alias.asname == alias.name for alias in statement.names)
            seen.update({alias.name: f".{statement.module}" for alias in statement.names})
    assert seen == spacy_mmcot._MODULES


def test_the_page_has_an_entry_for_every_name_and_no_other() -> None:
    headings = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    wanted = [name.replace("__", r"\_\_") for name in spacy_mmcot.__all__]
    assert sorted(headings) == sorted([*wanted, *REGISTERED])


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_has_a_signature_and_a_description(name: str) -> None:
    entry = ENTRIES[name]
    signature, description = signature_of(entry), description_of(entry)
    assert len(description.split()) >= 3, entry
    lines = [line for line in description.splitlines() if line]
    assert len(lines) == len(set(lines)), "a line stands there twice"
    for line in lines:
        assert line.startswith("- `") or line[-1] in ".:)", f"a stray line: {line!r}"
        assert not line.startswith(" "), f"Markdown takes this for code: {line!r}"
    # No module paths, no quoted annotations, no remains of aliases.
    assert not re.search(r"(typing|collections)\.|<|Annotated|\w: '|-> '", signature)


@pytest.mark.parametrize("name", [*spacy_mmcot.__all__, *REGISTERED])
def test_a_signature_names_every_parameter_in_order(name: str) -> None:
    value: Any
    if name in REGISTERED:
        module, _, attribute = REGISTERED[name].partition(":")
        value = getattr(importlib.import_module(module), attribute)
    else:
        value = getattr(spacy_mmcot, name)
    if isinstance(value, str) or (inspect.isclass(value) and "class" in ENTRIES[name]):
        return
    parameters = list(inspect.signature(value).parameters)
    if name.startswith("mmcot_"):
        parameters = parameters[2:]  # nlp and name, which spaCy passes
    tree = ast.parse(f"def {signature_of(ENTRIES[name])}: ...").body[0]
    assert isinstance(tree, ast.FunctionDef)
    shown = [*tree.args.args, *tree.args.kwonlyargs]
    assert [argument.arg for argument in shown] == [p for p in parameters if p != "self"]


def test_a_stale_page_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(SCRIPT))
    page = tmp_path / "API.md"
    main = script["main"]
    monkeypatch.setitem(main.__globals__, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["api_reference.py", "--check"])
    page.write_text(PAGE, "utf-8")
    main()
    for stale in (PAGE.replace("nlp: Language", "pipeline: Language", 1), PAGE + "More.\n"):
        page.write_text(stale, "utf-8")
        with pytest.raises(SystemExit, match="out of date"):
            main()


def test_paths_may_be_texts_and_posts_a_stream(tmp_path: Path) -> None:
    import spacy

    from spacy_mmcot import Post, QuestionSettings

    def name(file: str, text: str = "") -> str:
        (tmp_path / file).write_text(text, "utf-8")
        return str(tmp_path / file)

    nlp = spacy.blank("en")
    spacy_mmcot.write_docs(name("docs.spacy"), [nlp("Anna")])
    assert [doc.text for doc in spacy_mmcot.read_docs(str(tmp_path / "docs.spacy"), nlp.vocab)]
    assert spacy_mmcot.read_scheme(name("s.yml", "entities: {PER: people}")).entities
    assert spacy_mmcot.Prices(name("p.json", '{"m": {"input": 1, "output": 1}}')).find("m")
    recorded = name("a.jsonl", '{"id": "1", "sentence": "hm", "conclusion": {"entities": []}}')
    assert spacy_mmcot.load_answers(recorded)["1"].sentence == "hm"
    scheme = spacy_mmcot.Scheme(entities={"PER": "people"})
    asked = {"sentence": 1, "conclusion": 1}
    settings = QuestionSettings(variants=asked, scheme=scheme, after=["sentence"])
    with spacy_mmcot.AnswerStore(str(tmp_path / "a.sqlite")) as store:
        posts = iter([Post(id="1", text="Anna")])
        spacy_mmcot.elicit(posts, store, spacy_mmcot.RecordedSource(recorded), settings)
        assert store.answers()["1"].conclusion is not None


@pytest.mark.parametrize(
    "settings",
    [
        lambda: spacy_mmcot.Pace(workers=0),
        lambda: spacy_mmcot.Pace(requests_per_minute=-1),
        lambda: spacy_mmcot.Pace(tries=0),
        lambda: spacy_mmcot.AnnotateSettings(batch_size=0),
        lambda: spacy_mmcot.AnnotateSettings(chunk_rows=0),
        lambda: spacy_mmcot.QuestionSettings.of("nuon"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings: Callable[[], object]) -> None:
    with pytest.raises(spacy_mmcot.MMCoTError, match=r"E409.+ is .+Allowed: "):
        settings()
