"""The catalogue of messages: every error a user can cause says what was received, where, what is
allowed, and the cure.

Numbers: E1xx files and records, E2xx corpus, E3xx elicitation, E4xx model, E5xx distillation,
E6xx components, E7xx command line.
"""

from __future__ import annotations


class MMCoTError(ValueError):
    """Root of all errors that spacy-mmcot raises for what a user can put right."""


class Errors:
    E100 = "[E100] {path}: no such file. Check the path, or run the step that writes it."
    E101 = "[E101] {path}, line {line}: {problem}. Expected: {expected}. {cure}"


def located(path: object, line: int, problem: str, expected: str, cure: str = "") -> MMCoTError:
    """An error about one line of a file. `line` counts from 1."""
    message = Errors.E101.format(path=path, line=line, problem=problem, expected=expected, cure=cure)
    return MMCoTError(message.rstrip())
