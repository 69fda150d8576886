"""Predictions of several pipelines: the same Docs, in any order."""

from __future__ import annotations

from pathlib import Path

import found
import pytest
from found import word

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.evaluation.compare import match_predictions
from spacy_mmcot.evaluation.predictions import Predicted

PATHS = (Path("one.jsonl"), Path("two.jsonl"))


def matched(first: list[Predicted], others: list[Predicted]) -> list[Predicted]:
    return match_predictions(first, others, paths=PATHS)


def test_any_order() -> None:
    first, second = found.at_random(20, seed=1), found.at_random(20, seed=2)
    assert first != second
    assert matched(first, second[::-1]) == second


def test_a_side_that_is_nowhere_labelled() -> None:
    """As the file of a pipeline that is given the entities, or of an LLM."""
    first = [found.predicted(i, [word(0)], [], gold_relations=[]) for i in "12"]
    bare = [found.predicted(i, None, [word(3)]) for i in "12"]
    assert matched(first, bare) == bare
    assert matched(bare, first) == first
    bare[0] = first[0]
    with pytest.raises(MMCoTError, match=r"\[E801\] The doc '2' .*labelled entities"):
        matched(first, bare)


def test_other_docs() -> None:
    first = [found.predicted(str(i), [], []) for i in range(6)]
    other = [found.predicted(str(i), [], []) for i in (0, "x")]
    with pytest.raises(MMCoTError) as raised:
        matched(first, other)
    message = str(raised.value)
    assert message.startswith("[E800] two.jsonl and one.jsonl are not about the same docs: ")
    assert "only one.jsonl has ['1', '2', '3', '4', '5']; only two.jsonl has ['x']. " in message


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        (found.predicted("1", [], [], text="another text"), "text"),
        (found.predicted("1", [word(0)], [], gold_relations=[]), "labelled entities"),
        (
            found.predicted("1", [], [], gold_relations=[found.related(word(0), word(1))]),
            "labelled relations",
        ),
    ],
)
def test_the_same_id_on_something_else(changed: Predicted, part: str) -> None:
    first = found.predicted("1", [], [], gold_relations=[])
    with pytest.raises(MMCoTError, match=rf"\[E801\] The doc '1' has a different .*{part} in two"):
        matched([first], [changed])
