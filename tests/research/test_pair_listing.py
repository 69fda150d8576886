from __future__ import annotations

import pytest

from research.pair_listing import parse_pair_listing


@pytest.mark.parametrize(
    ("answer", "mentions", "expected"),
    [
        (
            "Ada Roe is a person, the Danish singer of Rain; Skagen is a town in Jutland, far off.",
            ("Ada Roe", "Skagen"),
            [("Ada Roe", "person"), ("Skagen", "town in Jutland")],
        ),
        # Another name, and then the kind.
        (
            "UR is Upper Reel, a Welsh film studio; Roe is probably Ada Roe, Danish minister.",
            ("Roe", "UR"),
            [("Roe", "Danish minister"), ("UR", "Welsh film studio")],
        ),
        ("Bo is Bo Holm, who sings, not a singer, a cook.", ("Bo",), [("Bo", "cook")]),
        ("Bo is Bo Holm, who sings.", ("Bo",), [("Bo", "Bo Holm")]),
        ("Jutland is the Danish Mainland, a region.", ("Jutland",), [("Jutland", "region")]),
        # One predicate for both, and two in one clause.
        (
            "Ribe and Skagen are both towns in Denmark, old ones.",
            ("Skagen", "Ribe"),
            [("Skagen", "towns in Denmark"), ("Ribe", "towns in Denmark")],
        ),
        (
            "Jutland is a region of Denmark and Ribe is a town in it; both are places.",
            ("Jutland", "Ribe"),
            [("Jutland", "region of Denmark"), ("Ribe", "town in it")],
        ),
        # Written as the post has it: split, tagged, escaped, in another case, with a neighbour.
        (
            "Ada's Inn is a pub. Roe_Band is a band whose singer left. R&B Co is a firm.",
            ("Ada 's Inn", "@roeband", "R &amp; B Co"),
            [("Ada 's Inn", "pub"), ("@roeband", "band"), ("R &amp; B Co", "firm")],
        ),
        ("RoeFan is an account; Rain is a song.", ("RT @RoeFan",), [("RT @RoeFan", "account")]),
        # The mention that heads a clause counts, and the longer one takes its place first.
        (
            "Ada Roe plays with Bo; Roe is the same name, a surname.",
            ("Roe", "Ada Roe"),
            [("Roe", "same name"), ("Ada Roe", "other")],
        ),
        (
            "Rain is a song on which Bo sings with Ada; Bo is a drummer from St. Ives, Cornwall.",
            ("Bo", "Rain"),
            [("Bo", "drummer from St. Ives"), ("Rain", "song")],
        ),
        ("Bo is a drummer.", ("Ada",), []),
        ("", ("Ada",), []),
        ("Bo is", ("Bo",), [("Bo", "other")]),
        ("Bo is ...", ("Bo", "?"), [("Bo", "other")]),
    ],
)
def test_what_an_answer_calls_each_mention(
    answer: str, mentions: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    items = parse_pair_listing(answer, mentions)
    assert [(item.mention, item.kind) for item in items] == expected


def test_explanations_are_the_clauses() -> None:
    answer = "Ada is a singer, born in Ribe, and Rain is her song; both are Danish."
    ada, rain = parse_pair_listing(answer, ["Ada", "Rain"])
    assert ada.explanation == "Ada is a singer, born in Ribe"
    assert rain.explanation == "Rain is her song"
