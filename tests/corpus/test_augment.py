from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from spacy_mmcot.corpus.augment import augment, list_sources
from spacy_mmcot.corpus.posts import read_posts
from spacy_mmcot.elicitation.store import AnswerStore, StoredAnswer
from spacy_mmcot.types import Answers, Entity, EntityVariant, NounItem, Post, PostRelation

POST = Post(
    id="p",
    text="Anna sang in Oslo",
    entities=[Entity(start=0, end=4, label="PER"), Entity(start=13, end=17, label="LOC")],
    relations=[PostRelation(head=0, tail=1, label="in")],
    pairs=[(1, 0), (0, 1)],
    image="images/p.png",
    caption="anna on a stage in Oslo",
    domain="music",
)
NOUN = [
    NounItem(mention="Anna", kind="person", explanation="a singer"),
    NounItem(mention="Oslo", kind="city", explanation="capital of Norway"),
]


def make(dimension: str, post: Post = POST, **answers: object):  # type: ignore[no-untyped-def]
    known = {post.id: Answers(id=post.id, **answers)}
    made, tallies = augment([post], known, [dimension])
    return made, tallies[dimension]


def surfaces(post: Post) -> list[tuple[str, str]]:
    return [(post.text[e.start : e.end], e.label) for e in post.entities or []]


def test_style_finds_the_mentions_in_any_order() -> None:
    text = "Oslo heard Anna!"
    (made,), tally = make(
        "style", style=text, noun=[*NOUN, NounItem(mention="sang", kind="verb")], sentence="A gig."
    )
    assert (made.post.id, made.post.split, made.post.text) == ("p#style", "train", text)
    assert surfaces(made.post) == [("Anna", "PER"), ("Oslo", "LOC")]
    assert (made.post.relations, made.post.pairs) == (POST.relations, POST.pairs)
    assert (made.post.image, made.post.domain) == ("images/p.png", "music")
    assert made.answers == Answers(id="p#style", noun=NOUN, sentence="A gig.")
    assert tally.made == 1


def test_what_nobody_judged_stays_unjudged() -> None:
    variant = EntityVariant(text="Bo sang in Oslo", swaps=[("Anna", "Bo")])
    for relations, pairs in ((None, [(0, 1)]), (None, None), ([], None), ([], [(1, 0)])):
        post = POST.model_copy(update={"relations": relations, "pairs": pairs})
        for answers in ({"style": "Oslo heard Anna!"}, {"entity": variant}, {"image": "a ship"}):
            (made,), _ = make(next(iter(answers)), post, **answers)
            assert (made.post.relations, made.post.pairs) == (relations, pairs)


def test_style_refuses_what_is_not_certain() -> None:
    for text, reason in [
        ("anna sang in Oslo", "not in the new text"),
        ("Anna, oh Anna, sang in Oslo", "more often"),
        (POST.text, "the new text is the old one"),
    ]:
        made, tally = make("style", style=text)
        assert made == []
        assert len(tally.rejected) == 1
        assert reason in next(iter(tally.rejected))
        assert list(tally.rejected.values()) == [["p"]]
    again = POST.model_copy(update={"text": "Anna sang in Oslo. #Oslo"})
    made, tally = make("style", again, style="Anna performed in Oslo")
    assert made == []
    assert list(tally.rejected) == ["a mention's surface also stands unlabelled in the post"]


def test_entity_swaps_mentions_and_what_is_known_of_them() -> None:
    variant = EntityVariant(
        text="Mary Lou sang in Rome", swaps=[("Anna", "Mary Lou"), ("Oslo", "Rome")]
    )
    (made,), _ = make("entity", entity=variant, noun=NOUN, sentence="A concert in Oslo.")
    assert made.post.id == "p#entity"
    assert surfaces(made.post) == [("Mary Lou", "PER"), ("Rome", "LOC")]
    assert (made.post.relations, made.post.pairs) == (POST.relations, POST.pairs)
    assert made.post.caption == "anna on a stage in Rome"
    assert made.answers == Answers(
        id="p#entity",
        noun=[
            NounItem(mention="Mary Lou", kind="person"),
            NounItem(mention="Rome", kind="city"),
        ],
        sentence="A concert in Rome.",
    )
    (made,), _ = make("entity", entity=variant, sentence="She sang at home.")
    assert made.answers is None


def test_entity_labels_stay_exact_where_a_search_would_be_in_doubt() -> None:
    post = Post(
        id="p",
        text="Bergen named it Bergen",
        entities=[Entity(start=0, end=6, label="PER"), Entity(start=16, end=22, label="MISC")],
    )
    variant = EntityVariant(text="Moby named it Moby", swaps=[("Bergen", "Moby")])
    (made,), _ = make("entity", post, entity=variant)
    assert [(e.start, e.end, e.label) for e in made.post.entities or []] == [
        (0, 4, "PER"),
        (14, 18, "MISC"),
    ]
    # The text differs from its swaps, so that the mentions have to be looked for.
    variant = EntityVariant(text="Moby just named it Moby", swaps=[("Bergen", "Moby")])
    made, tally = make("entity", post, entity=variant)
    assert made == []
    assert list(tally.rejected) == ["one surface has mentions of several labels"]


def test_entity_that_is_impossible_is_dropped() -> None:
    variant = EntityVariant(text="Mars sang in Oslo", swaps=[("Anna", "Mars")], possible=False)
    made, tally = make("entity", entity=variant)
    assert made == []
    assert (tally.made, tally.impossible, tally.rejected) == (0, 1, {})


def test_image_changes_the_caption_alone() -> None:
    (made,), _ = make(
        "image", image="a harbour", noun=NOUN, sentence="A gig.", multimodality="They agree."
    )
    assert made.post == POST.model_copy(
        update={"id": "p#image", "caption": "a harbour", "image": None}
    )
    assert made.answers == Answers(id="p#image", noun=NOUN, sentence="A gig.")


def test_labelled_training_posts_only() -> None:
    posts = [
        POST.model_copy(update={"id": "dev", "split": "dev"}),
        POST.model_copy(update={"id": "unlabelled", "split": "unlabelled"}),
        POST.model_copy(update={"id": "open", "entities": None, "relations": None}),
        POST,
        POST.model_copy(update={"id": "silent"}),
    ]
    names = ("dev", "unlabelled", "open", "p")
    known = {name: Answers(id=name, style="Oslo heard Anna!") for name in names}
    made, tallies = augment(list_sources(posts), known)
    assert [new.post.id for new in made] == ["p#style"]
    assert (tallies["style"].unanswered, tallies["entity"].unanswered) == (1, 2)


def test_command_on_the_demo(command: Callable[..., Result], demo: Path, tmp_path: Path) -> None:
    output, answers = tmp_path / "new.jsonl", tmp_path / "new-answers.jsonl"
    result = command(
        *("augment", demo / "posts.jsonl", demo / "answers.jsonl"),
        *("--output", output, "--answers-out", answers),
    )
    assert result.exit_code == 0, result.output
    posts = read_posts(output)
    kinds = Counter(post.id.split("#")[1] for post in posts)
    assert kinds["style"] > 100
    assert kinds["entity"] > 100
    assert "entity, rejected: the new text is the old one" in result.output
    assert f"{len(posts)} new posts are in {output}" in result.output

    old = {post.id: post for post in read_posts(demo / "posts.jsonl")}
    for post in posts:
        source = old[post.id.split("#")[0]]
        assert source.split == post.split == "train"
        assert [e.label for e in post.entities or []] == [e.label for e in source.entities or []]
        if post.id.endswith("#style"):
            assert sorted(surfaces(post)) == sorted(surfaces(source))
        assert post.image is not None
        assert (output.parent / post.image).is_file()
    ids = [json.loads(line)["id"] for line in answers.read_text("utf-8").splitlines()]
    assert set(ids) <= {post.id for post in posts}

    first = output.read_bytes(), answers.read_bytes()
    command(
        *("augment", demo / "posts.jsonl", demo / "answers.jsonl"),
        *("--output", output, "--answers-out", answers),
    )
    assert (output.read_bytes(), answers.read_bytes()) == first


def test_command_with_chosen_dimensions_and_broken_posts(
    command: Callable[..., Result], jsonl: Callable[..., Path], tmp_path: Path
) -> None:
    row = POST.model_dump(exclude={"image"})
    posts = jsonl("posts.jsonl", row, {"id": "broken"})
    answers = jsonl("answers.jsonl", {"id": "p", "style": "Oslo heard Anna!", "image": "a ship"})
    output = tmp_path / "new.jsonl"
    arguments = ("augment", posts, answers, "-o", output, "--answers-out", tmp_path / "a.jsonl")
    result = command(*arguments)
    assert result.exit_code == 1
    assert "line 2: field text is missing" in result.output
    assert not output.exists()
    result = command(*arguments, "--dimension", "image", "--skip-invalid")
    assert result.exit_code == 0, result.output
    assert [post.id for post in read_posts(output)] == ["p#image"]
    assert "1 invalid rows skipped" in result.output


def test_every_variant_makes_a_post() -> None:
    first, second, third = (
        {"p": Answers(id="p", style=f"{word} heard Anna in Oslo", noun=NOUN)} for word in "ABC"
    )
    del third["p"]
    made, tallies = augment([POST], first, ["style", "entity"], [second, third])
    assert [(new.post.id, new.post.text) for new in made] == [
        ("p#style", "A heard Anna in Oslo"),
        ("p#style2", "B heard Anna in Oslo"),
    ]
    assert tallies["style"].made == 2
    assert (tallies["style"].unanswered, tallies["entity"].unanswered) == (0, 1)


def test_variants_behind_one_without_answers(
    command: Callable[..., Result], jsonl: Callable[..., Path], tmp_path: Path
) -> None:
    store = tmp_path / "a.sqlite"
    with AnswerStore(store) as opened:
        for i, value in enumerate(("A heard Anna in Oslo", None, "C heard Anna in Oslo")):
            asked = (f"k{i}", "p", "ner", "style", "t", "openai", "m", "raw")
            reason = None if value else "no JSON"
            opened.put(StoredAnswer(*asked, value, reason, i))  # type: ignore[arg-type]
    row = POST.model_dump(exclude={"image"})
    posts = jsonl("posts.jsonl", row, {**row, "id": "d", "split": "dev"})
    output = tmp_path / "new.jsonl"
    done = command("augment", posts, store, "-o", output, "--answers-out", tmp_path / "b.jsonl")
    assert [post.id for post in read_posts(output)] == ["p#style", "p#style3"]
    assert "1 of 2 posts are training posts with all labels." in done.stdout
