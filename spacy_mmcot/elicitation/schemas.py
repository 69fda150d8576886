"""JSON schemas of the structured answers, in the strict form that endpoints enforce: every field
required, none beyond."""

from __future__ import annotations

from typing import Any

from ..types import Dimension

_TEXT = {"type": "string"}


def _object(**fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


# The judgement stands last: a model writes in order, so it judges what it has written.
_SCHEMAS: dict[Dimension, dict[str, Any]] = {
    "noun": _object(things=_list(_object(mention=_TEXT, kind=_TEXT, explanation=_TEXT))),
    "entity": _object(text=_TEXT, swaps=_list(_list(_TEXT)), possible={"type": "boolean"}),
}


def answer_schema(dimension: Dimension) -> dict[str, Any] | None:
    """The schema of a dimension's answer, None where it is plain text."""
    return _SCHEMAS.get(dimension)


def response_formats(dimension: Dimension) -> list[dict[str, Any]]:
    """What to ask an endpoint for, best first; none for plain text. Whatever it grants, the
    answer is validated all the same."""
    schema = answer_schema(dimension)
    if schema is None:
        return []
    named = {"name": dimension, "strict": True, "schema": schema}
    return [{"type": "json_schema", "json_schema": named}, {"type": "json_object"}]
