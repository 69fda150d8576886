from __future__ import annotations

import pytest

from spacy_mmcot.corpus.augment import NotLocated, Substitution, find_surface, locate_mentions


def test_occurrences_are_whole_words() -> None:
    assert find_surface("Reed", "Reed's Reedham, @Reed #Reed reed") == [(0, 4), (17, 21), (23, 27)]
    assert find_surface("#NBA", "x#NBA #NBAAwards") == [(1, 5)]
    assert find_surface("A.B. (x)", "say A.B. (x)!") == [(4, 12)]


def test_mentions_of_one_surface_take_its_occurrences_in_turn() -> None:
    text = "In Oslo Anna met Bob; Oslo rained."
    places = locate_mentions([("Oslo", "LOC"), ("Anna", "PER"), ("Oslo", "LOC")], text)
    assert [text[start:end] for start, end in places] == ["Oslo", "Anna", "Oslo"]
    assert places == [(3, 7), (8, 12), (22, 26)]


def test_a_shorter_surface_is_not_looked_for_inside_a_longer_one() -> None:
    text = "Liverpool FC left Liverpool"
    places = locate_mentions([("Liverpool", "LOC"), ("Liverpool FC", "ORG")], text)
    assert places == [(18, 27), (0, 12)]


@pytest.mark.parametrize(
    ("mentions", "reason"),
    [
        ([("Rome", "LOC")], "not in the new text"),
        ([("oslo", "LOC")], "not in the new text"),
        ([("Anna", "PER"), ("Anna", "PER")], "less often"),
        ([("Oslo", "LOC")], "more often"),
        ([("Oslo", "LOC"), ("Oslo", "ORG")], "several labels"),
    ],
)
def test_doubt_is_refused(mentions: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(NotLocated, match=reason):
        locate_mentions(mentions, "Anna left Oslo for Oslo")


def test_substitution_tells_where_things_went() -> None:
    text = "Oslo FC of Oslo beat Bergen"
    swapped = Substitution(text, [("Oslo", "Rome"), ("Bergen", "X"), ("Oslo FC", "Roma AS")])
    assert swapped.text == "Roma AS of Rome beat X"
    places = [swapped.get_place(*place) for place in [(0, 7), (11, 15), (21, 27)]]
    assert [swapped.text[slice(*place)] for place in places] == ["Roma AS", "Rome", "X"]
    assert swapped.text[slice(*swapped.get_place(0, 15))] == "Roma AS of Rome"


def test_several_swaps_of_one_surface_are_refused() -> None:
    with pytest.raises(NotLocated, match="several swaps"):
        Substitution("Fargo, in Fargo", [("Fargo", "Nebraska"), ("Fargo", "Omaha")])


def test_a_swap_never_swaps_what_an_earlier_one_put_there() -> None:
    assert Substitution("A met B", [("A", "B"), ("B", "C")]).text == "B met C"


def test_a_swap_across_the_edge_of_a_mention_is_refused() -> None:
    swapped = Substitution("New York City", [("York City", "Haven")])
    assert swapped.get_place(0, 13) == (0, 9)
    with pytest.raises(NotLocated, match="part of a mention"):
        swapped.get_place(0, 8)
