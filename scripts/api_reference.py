"""Write docs/API.md from the docstrings of what a program may import.

python scripts/api_reference.py           write the page
python scripts/api_reference.py --check   exit code 1 where the page is stale
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "API.md"

# The start of an item in a docstring's list of arguments or attributes.
NAMED = r"`?((?:\w+\._\.)?[a-z_]+)`?: "

# What is promised to stay. Everything else may change from one version to the next.
PUBLIC = {
    "Docs and pictures": {
        "spacy_mmcot.corpus.extensions": [
            *("attach", "register", "set_image", "get_relations", "set_relations"),
            *("get_pairs", "set_pairs", "get_alignment", "Alignment"),
        ],
        "spacy_mmcot.types": ["Relation"],
    },
    "Components": {
        "spacy_mmcot.components.ner": ["MMCoTNER", "Mention", "Mentions"],
        "spacy_mmcot.components.rel": ["MMCoTRel", "PairPrediction"],
    },
    "Architectures": {
        "spacy_mmcot.model.encoder_bridge": ["PromptedTransformer", "KnowledgeReader"],
        "spacy_mmcot.model.tagger": ["Tagger"],
        "spacy_mmcot.model.pair_classifier": ["PairClassifier"],
        "spacy_mmcot.model.vision": ["ConvVision", "HFVision"],
        "spacy_mmcot.model.prompts": ["make_alignment_setter", "set_alignment"],
    },
    "Readers, scorers, policies": {
        "spacy_mmcot.corpus.reader": ["Corpus"],
        "spacy_mmcot.evaluation.scorers": ["make_ner_scorer", "make_rel_scorer"],
        "spacy_mmcot.components.run_logger": ["make_run_logger"],
        "spacy_mmcot.pictures.read": ["PicturePolicy"],
    },
    "Corpora": {
        "spacy_mmcot.types": [
            *("Post", "Entity", "PostRelation", "Answers", "NounItem", "EntityVariant")
        ],
        "spacy_mmcot.corpus.posts": ["iter_records", "write_records"],
        "spacy_mmcot.corpus.docs": ["make_doc"],
        "spacy_mmcot.corpus.docbin": ["list_docbins", "read_docs", "write_docs"],
    },
    "Elicitation": {
        "spacy_mmcot.elicitation.elicit": ["elicit", "Money", "Result"],
        "spacy_mmcot.elicitation.questions": ["Source"],
        "spacy_mmcot.elicitation.prompts": ["Prompt"],
        "spacy_mmcot.elicitation.replies": ["Reply", "Usage", "AnswerRejected", "Unavailable"],
        "spacy_mmcot.elicitation.store": [
            *("AnswerStore", "load_answers", "RecordedSource", "read_answers"),
        ],
    },
    "Distillation": {
        "spacy_mmcot.distillation.teach": ["teach"],
        "spacy_mmcot.distillation.prompt_targets": ["KnowledgeEncoder", "set_prompt_targets"],
        "spacy_mmcot.distillation.soft_labels": ["set_soft_labels", "get_soft_labels"],
        "spacy_mmcot.evaluation.temperature": ["fit_temperature"],
    },
    "Production": {
        "spacy_mmcot.production.worker": ["PipelineWorker", "Busy"],
        "spacy_mmcot.production.pipelines": ["limit_compiled_products", "trim_heap"],
    },
    "Errors": {"spacy_mmcot.errors": ["MMCoTError", "UsageError"]},
}


def page() -> str:
    lines = [
        "# API",
        "",
        "Written from the docstrings by `python scripts/api_reference.py`; edit those. What stands",
        "here is public. Everything else may change from one version to the next.",
    ]
    for title, modules in PUBLIC.items():
        lines += ["", f"## {title}"]
        for module, names in modules.items():
            for name in names:
                lines += entry(module, name)
    return "\n".join(lines) + "\n"


def entry(module: str, name: str) -> Iterator[str]:
    found = getattr(importlib.import_module(module), name)
    yield from ("", f"### {name}", "", f"`from {module} import {name}`", "")
    is_record = hasattr(found, "model_fields")
    if is_record:
        yield from fenced([f"{key}: {plain(field)}" for key, field in record_fields(found)])
    elif has_signature(found):
        yield from fenced([signature(name, found)])
    yield from described(found)
    if inspect.isclass(found) and not is_record:
        yield from methods(name, found)


def methods(owner: str, found: type) -> Iterator[str]:
    """Those that the class itself documents: what it inherits is spaCy's, or its base's."""
    for name, member in vars(found).items():
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        yield from ("", f"#### {owner}.{name}", "")
        if not isinstance(member, property):
            yield from fenced([signature(name, function)])
        yield from described(function)


def record_fields(found: Any) -> list[tuple[str, Any]]:
    return [(name, found.__annotations__[name]) for name in found.model_fields]


def has_signature(found: Any) -> bool:
    if not inspect.isclass(found):
        return True
    return not issubclass(found, BaseException) and not getattr(found, "_is_protocol", False)


def described(found: Any) -> Iterator[str]:
    text = inspect.getdoc(found)
    if not text:
        raise SystemExit(f"{found.__module__}.{found.__qualname__} has no docstring")
    # Continuation lines of a list of arguments are indented, which Markdown would take for code.
    for paragraph in text.split("\n\n"):
        yield ""
        items = re.split(rf"(?<=[.:])\n(?={NAMED})", paragraph)
        are_items = len(items) > 1 or re.match(NAMED, paragraph)
        for item in items:
            flat = " ".join(line.strip() for line in item.splitlines())
            yield re.sub(NAMED, r"- `\1`: ", flat, count=1) if are_items else flat


def signature(name: str, function: Any) -> str:
    """One line where it fits, otherwise a line an argument; annotations as they are written."""
    try:
        found = inspect.signature(function)
    except ValueError:
        return name
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    returns = found.return_annotation
    end = "" if returns in (inspect.Signature.empty, None, "None") else f" -> {plain(returns)}"
    shown = [argument(parameter) for parameter in parameters]
    for i, parameter in enumerate(parameters):
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            shown.insert(i, "*")
            break
    line = f"{name}({', '.join(shown)}){end}"
    if len(line) <= 88:
        return line
    return "\n".join([f"{name}(", *(f"    {part}," for part in shown), f"){end}"])


def argument(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return f"**{text}"
    if parameter.annotation is not inspect.Parameter.empty:
        text += f": {plain(parameter.annotation)}"
    if parameter.default is not inspect.Parameter.empty:
        default = parameter.default
        text += f" = {'...' if callable(default) else repr(default)}"
    return text


def plain(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"ForwardRef\('(.*?)'\)", r"\1", text)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text).strip("'")


def fenced(lines: list[str]) -> list[str]:
    # Not "python": these are signatures, no program.
    return ["```text", *lines, "```"]


def main() -> None:
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text("utf-8") != text:
            raise SystemExit(f"{PAGE.name} is stale: run python scripts/api_reference.py")
        return
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
