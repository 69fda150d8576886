"""Chain-of-thought prompt distillation for spaCy pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .corpus.extensions import attach as attach

__version__ = "0.1.0"
__all__ = ["__version__", "attach"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # spaCy imports the package at every start of its command line, so nothing is loaded here
        # before it is asked for.
        if name == "attach":
            from .corpus.extensions import attach

            return attach
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
