"""Chain-of-thought prompt distillation for spaCy pipelines.

`__all__` is the public API. Each name is imported when it is first used: spaCy imports this package
at every start of its command line. Type checkers read `__init__.pyi` instead.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Module -> the public names that it defines.
_NAMES = {
    ".corpus.docs": ("attach",),
    ".corpus.extensions": (
        "register_extensions",
        "set_image",
        "get_relations",
        "set_relations",
        "get_pairs",
        "set_pairs",
        "get_alignment",
        "Alignment",
    ),
    ".types": (
        "Relation",
        "Post",
        "Entity",
        "PostRelation",
        "Answers",
        "NounItem",
        "EntityVariant",
    ),
    ".corpus.posts": ("read_posts", "write_posts"),
    ".corpus.docbin": ("read_docs", "write_docs"),
    ".scheme": ("Scheme", "read_scheme"),
    ".elicitation.elicit": ("elicit", "ElicitResult"),
    ".elicitation.prompts": ("QuestionSettings", "Prompt"),
    ".elicitation.engine": ("Pace",),
    ".elicitation.money": ("Prices",),
    ".elicitation.store": ("AnswerStore", "load_answers", "RecordedSource"),
    ".elicitation.questions": ("Source",),
    ".elicitation.replies": ("Reply", "Usage", "AnswerRejected", "Unavailable"),
    ".distillation.teach": ("teach",),
    ".distillation.entity_teachers": ("GlinerTeacher",),
    ".evaluation.evaluate": ("evaluate",),
    ".evaluation.conclusions": ("evaluate_conclusions",),
    ".production.annotate": ("annotate", "AnnotateSettings", "AnnotateResult"),
    ".production.tables": ("ColumnNames",),
    ".production.export": ("export", "export_standalone", "build_wheel"),
    ".production.worker": ("PipelineWorker", "Busy", "extract_findings"),
    ".pictures.read": ("PicturePolicy",),
    ".model.vision": ("make_vision_model",),
    ".errors": ("MMCoTError", "UsageError"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_MODULES]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value
