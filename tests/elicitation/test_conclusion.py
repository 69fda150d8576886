from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spacy_mmcot.elicitation import prompts
from spacy_mmcot.elicitation.client import OpenAISettings, OpenAISource
from spacy_mmcot.elicitation.conclusion import (
    Examples,
    conclusion_schema,
    example_answer,
    merge_conclusions,
    read_conclusion,
)
from spacy_mmcot.elicitation.elicit import choose_examples, define_labels, elicit
from spacy_mmcot.elicitation.mentions import find_mention
from spacy_mmcot.elicitation.prompts import QuestionSettings, check_templates
from spacy_mmcot.elicitation.replies import AnswerRejected
from spacy_mmcot.elicitation.store import AnswerStore, load_answers
from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.scheme import RelationLabel, Scheme, draft_scheme, format_scheme
from spacy_mmcot.types import Conclusion, Entity, Post, PostRelation, make_text_key
from tests.llm_server import LLMServer, labels_asked, quoted, user_text

ENTITIES = Scheme(entities={"PER": "people", "LOC": "places"}, examples=2)
BOTH = Scheme(
    entities={"PER": "people", "LOC": "places"},
    relations={"lives_in": RelationLabel(definition="lives there", head=["PER"], tail=["LOC"])},
    examples=2,
)


def labelled(text: str, *mentions: tuple[str, str], lives: bool = False, **fields: Any) -> Post:
    entities = [
        Entity(start=text.index(m), end=text.index(m) + len(m), label=label)
        for m, label in mentions
    ]
    relations = [PostRelation(head=0, tail=1, label="lives_in")] if lives else []
    return Post(id=text, text=text, entities=entities, relations=relations, **fields)


def read(text: str, scheme: Scheme = BOTH, **answer: Any) -> tuple[Conclusion, list[str]]:
    whole = {"entities": [], "relations": [], **answer}
    return read_conclusion(whole, Post(id="1", text=text), scheme)


def entity(mention: str, label: str, sure: Any = "high") -> dict[str, Any]:
    return {"mention": mention, "label": label, "sure": sure}


def test_repeated_mentions_are_told_apart() -> None:
    text = "Paris flew to Paris, then Paris slept"
    found, dropped = read(
        text, entities=[entity("Paris", "PER"), entity("Paris", "LOC"), entity("Paris", "PER")]
    )
    assert not dropped
    assert [(e.start, e.label) for e in found.entities or ()] == [
        (0, "PER"),
        (14, "LOC"),
        (26, "PER"),
    ]


def test_mentions_stand_as_words_before_they_stand_inside_words() -> None:
    assert find_mention("Art", "Artists show Art") == [(13, 16)]
    assert find_mention("Art", "Artists show") == [(0, 3)]
    assert find_mention("#FilmWeek", "at # FilmWeek") == [(5, 13)]
    assert find_mention("new  york", "New York") == [(0, 8)]
    assert find_mention("Rome", "Paris") == []
    assert find_mention("#", "# one") == []


@pytest.mark.parametrize(
    "mention, text",
    [
        ("Joe's Diner", "at |Joe’s Diner|"),
        ('"Ada"', "|Ada| sings"),
        ("Cafe\u0301 Zürich", "|Café Zürich|, late"),
        ("Café Zürich", "|Cafe\u0301 Zu\u0308rich|, late"),
        ("ACME", "the |ＡＣＭＥ| works"),
        ("AT&T", "|AT&amp;T| hires"),
        ("AT&amp;T", "|AT&T| hires"),
        ("Rolls-Royce", "a |Rolls\u2011Royce|"),
        ("Anna Lena", "|Anna-Lena| sings"),
        ("International Bank", "the |Inter-\nnational Bank|"),
        ("Donau AG", "|Do\u00adnau AG|"),
        ("Straße", "in |STRASSE|"),
        ("istanbul", "in |İstanbul|"),
        ("Cafe", "Café"),
    ],
)
def test_mentions_are_found_as_a_reader_sees_them(mention: str, text: str) -> None:
    pieces = text.split("|")
    expected = [(len(pieces[0]), len(pieces[0]) + len(pieces[1]))] if len(pieces) > 1 else []
    assert find_mention(mention, "".join(pieces)) == expected


def test_labels_outside_the_scheme_are_dropped_and_counted() -> None:
    found, dropped = read("Ada in Rome", entities=[entity("Ada", "HUMAN"), entity("Rome", "LOC")])
    assert [e.mention for e in found.entities or ()] == ["Rome"]
    assert len(dropped) == 1 and "'HUMAN'" in dropped[0]


def test_labels_may_be_in_another_case_and_nulls_are_left_out() -> None:
    both = [{**entity("Ada", "per", " High"), "why": None}, entity("Rome", "Loc", None)]
    relation = {"head": "ada", "label": "Lives in", "tail": "Rome", "sure": None}
    found, dropped = read("Ada in Rome", reasoning=None, entities=both, relations=[relation])
    assert [(e.label, e.sure) for e in found.entities or ()] == [("PER", "high"), ("LOC", "high")]
    assert [r.label for r in found.relations or ()] == ["lives_in"] and not dropped
    unclear = Scheme(entities={"PER": "people", "per": "prices"})
    assert read("Ada", unclear, entities=[entity("Ada", "Per")])[0].entities == []


def test_what_the_text_does_not_hold_is_dropped_and_an_answer_of_such_alone_refused() -> None:
    found, dropped = read("Ada in Rome", entities=[entity("Bob", "PER"), entity("Rome", "LOC")])
    assert [e.mention for e in found.entities or ()] == ["Rome"] and "'Bob'" in dropped[0]
    with pytest.raises(AnswerRejected, match="none of 2"):
        read("Ada in Rome", entities=[entity("Bob", "PER"), entity("Wien", "LOC")])


def test_relations_join_listed_mentions_alone() -> None:
    both = [entity("Ada", "PER"), entity("Rome", "LOC")]
    relation = {"head": "Ada", "label": "lives_in", "tail": "Rome", "sure": "medium"}
    found, dropped = read("Ada lives in Rome", entities=both, relations=[relation])
    (kept,) = found.relations or ()
    assert (kept.head_start, kept.tail_start, kept.sure) == (0, 13, "medium") and not dropped
    found, dropped = read("Ada lives in Rome", entities=both[:1], relations=[relation])
    assert found.relations == [] and "'Rome'" in dropped[0]
    found, dropped = read(
        "Ada lives in Rome", entities=both, relations=[{**relation, "label": "owns"}]
    )
    assert found.relations == [] and "'owns'" in dropped[0]
    turned = {**relation, "head": "Rome", "tail": "Ada"}
    found, dropped = read("Ada lives in Rome", entities=both, relations=[turned])
    assert found.relations == [] and "labels that it allows" in dropped[0]


def test_given_pairs_are_decided_each() -> None:
    post = labelled("Ada lives in Rome", ("Ada", "PER"), ("Rome", "LOC"), pairs=[(0, 1), (1, 0)])
    answer = {
        "relations": [
            {"head": "Ada", "label": "lives_in", "tail": "Rome", "sure": "high"},
            {"head": "Rome", "label": "None", "tail": "Ada", "sure": "low", "or": "lives_in"},
        ]
    }
    found, _ = read_conclusion(answer, post, BOTH)
    assert found.entities is None
    assert [(r.head_start, r.label, r.or_label) for r in found.relations or ()] == [
        (0, "lives_in", None),
        (13, "None", "lives_in"),
    ]
    schema = conclusion_schema(BOTH, pairs=True)
    label = schema["properties"]["relations"]["items"]["properties"]["label"]
    assert label["enum"] == ["lives_in", "None"] and "entities" not in schema["properties"]


@pytest.mark.parametrize("sure, level", [(True, "high"), (False, "low"), ("medium", "medium")])
def test_sureness_has_three_levels(sure: Any, level: str) -> None:
    found, _ = read("Ada", entities=[entity("Ada", "PER", sure)])
    assert found.entities and found.entities[0].sure == level
    with pytest.raises(AnswerRejected, match="sure"):
        read("Ada", entities=[entity("Ada", "PER", "certain")])


def test_remarks_of_the_llm_are_no_fault_wherever_they_stand() -> None:
    found, dropped = read("Ada", entities=[{**entity("Ada", "PER"), "why": "a name"}], note="sure")
    assert [e.mention for e in found.entities or ()] == ["Ada"] and not dropped


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"reasoning": "none"},
        {"entities": "none"},
        {"entities": [entity("Ada", "PER")]},
        {"relations": []},
    ],
)
def test_answers_of_another_form_are_refused(answer: Any) -> None:
    with pytest.raises(AnswerRejected):
        read_conclusion(answer, Post(id="1", text="Ada"), BOTH)


def test_examples_cover_every_label_and_never_show_a_post_its_own() -> None:
    posts = [
        *(labelled(f"Ada {i}", ("Ada", "PER")) for i in range(6)),
        labelled("seen in Rome", ("Rome", "LOC")),
        labelled("Seen in Rome!", ("Rome", "LOC"), split="dev"),
    ]
    examples = Examples(ENTITIES, posts)
    usual = examples.shown_to(Post(id="new", text="Somebody else"))
    labels = {e.label for p in usual for e in p.entities or ()}
    assert labels == {"PER", "LOC"} and len(usual) == 2
    assert usual == examples.shown_to(Post(id="other", text="Another one"))
    for post in posts:
        shown = examples.shown_to(post)
        assert make_text_key(post.text) not in {make_text_key(p.text) for p in shown}
        assert len(shown) == 2 and all(p.split == "train" for p in shown)


def test_a_store_that_another_process_is_making_has_no_examples_yet(tmp_path: Path) -> None:
    posts = [labelled("Ada", ("Ada", "PER")), labelled("Rome", ("Rome", "LOC"))]
    store = tmp_path / "answers.sqlite"
    store.touch()
    examples, differ = choose_examples(ENTITIES, posts, store)
    assert set(examples.chosen) == {make_text_key(post.text) for post in posts} and not differ


def test_more_labels_than_examples_is_an_error() -> None:
    scheme = ENTITIES.model_copy(update={"examples": 1})
    posts = [labelled("Ada", ("Ada", "PER")), labelled("Rome", ("Rome", "LOC"))]
    with pytest.raises(MMCoTError, match="examples"):
        Examples(scheme, posts)
    assert Examples(scheme, posts[:1]).shown_to(Post(id="x", text="x")) == posts[:1]


def test_an_example_reads_back_as_its_own_labels() -> None:
    post = labelled("Ada lives in Rome", ("Ada", "PER"), ("Rome", "LOC"), lives=True)
    answer = json.loads(example_answer(post, BOTH, pairs=False))
    found, _ = read_conclusion(answer, post, BOTH)
    assert [(e.start, e.label) for e in found.entities or ()] == [(0, "PER"), (13, "LOC")]
    assert [(r.head_start, r.label, r.tail_start) for r in found.relations or ()] == [
        (0, "lives_in", 13)
    ]


def test_several_answers_vote_and_agreement_is_the_sureness() -> None:
    answers = [
        read("Ada saw Rome", entities=[entity("Ada", "PER"), entity("Rome", "LOC")])[0],
        read("Ada saw Rome", entities=[entity("Ada", "PER"), entity("Rome", "PER", "low")])[0],
        read("Ada saw Rome", entities=[entity("Ada", "PER", "low"), entity("Rome", "LOC")])[0],
        read("Ada saw Rome", entities=[entity("Ada", "PER")])[0],
    ]
    merged = merge_conclusions(answers)
    assert merged is not None
    assert [(e.mention, e.label, e.sure) for e in merged.entities or ()] == [
        ("Ada", "PER", "high"),
        ("Rome", "LOC", "medium"),
    ]
    assert merge_conclusions(answers[:1]) == answers[0]
    assert merge_conclusions([]) is None


GERMAN = Scheme(
    language="German",
    domain="support tickets",
    entities={"PRODUKT": "devices and programs", "ORT": "places"},
    guidelines="Articles are not part of a mention.",
    examples=2,
)
TICKETS = [
    labelled("Der Drucker in Bern druckt nicht", ("Drucker", "PRODUKT"), ("Bern", "ORT")),
    labelled("Outlook startet nicht", ("Outlook", "PRODUKT")),
    labelled("outlook startet nicht!", ("outlook", "PRODUKT")),
    labelled("Danke, alles gut"),
    Post(id="alt", text="Wlan in Genf langsam", split="unlabelled"),
    Post(id="neu", text="Teams in Genf hängt", split="unlabelled"),
]


def conclude(
    server: LLMServer, store: AnswerStore, posts: list[Post], **settings: Any
) -> list[dict[str, Any]]:
    """Asks for conclusions; returns the requests."""
    server.requests.clear()
    scheme = settings.pop("scheme", GERMAN)
    asked = QuestionSettings(
        variants=settings.pop("variants", {"conclusion": 1}),
        scheme=scheme,
        examples=Examples(scheme, posts),
        **settings,
    )
    source = OpenAISource(OpenAISettings("m", base_url=server.url, api_key="sk-test-0815"))
    elicit(posts, store, source, asked)
    return list(server.requests)


def system(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"]


def test_the_scheme_is_what_the_model_reads(llm_server: LLMServer, store: AnswerStore) -> None:
    requests = conclude(llm_server, store, TICKETS)
    body = next(b for b in requests if quoted(b, "post") == TICKETS[-1].text)
    for words in ("support tickets in German", "PRODUKT: devices", "ORT: places", "Articles"):
        assert words in system(body)
    assert "social media" not in json.dumps(requests)
    assert labels_asked(body) == {"entities": ["PRODUKT", "ORT"]}
    found = store.answers()["neu"].conclusion
    assert found and found.entities
    assert (found.entities[0].mention, found.entities[0].start) == ("Teams", 0)


def test_no_text_meets_its_own_labels(llm_server: LLMServer, store: AnswerStore) -> None:
    requests = conclude(llm_server, store, TICKETS)
    assert len(requests) == len(TICKETS)
    shown = 0
    for body in requests:
        post = next(p for p in TICKETS if p.text == quoted(body, "post"))
        examples = [p for p in TICKETS if f"\n{p.text}\n" in system(body)]
        shown += len(examples)
        assert all(make_text_key(p.text) != make_text_key(post.text) for p in examples)
        for entity in post.entities or ():
            own = json.dumps(post.text[entity.start : entity.end], ensure_ascii=False)
            assert own.lower() not in system(body).lower()
    assert shown >= len(TICKETS)
    unlabelled = [post.text for post in TICKETS[-2:]]
    usual = {system(b) for b in requests if quoted(b, "post") in unlabelled}
    assert len(usual) == 1, "an endpoint can cache the beginning"


CLINICAL = Scheme(
    language="English",
    domain="clinical notes",
    entities={
        "DRUG": "a substance that was given, by its name and without the dose",
        "FINDING": "a symptom, sign or diagnosis of the patient",
    },
    relations={
        "causes": RelationLabel(
            definition="the drug brought about the finding, in the writer's view",
            head=["DRUG"],
            tail=["FINDING"],
        ),
        "treats": RelationLabel(
            definition="the drug was given because of the finding", head=["DRUG"], tail=["FINDING"]
        ),
    },
    guidelines="Findings that are denied are marked too. Abbreviations are mentions.",
    examples=2,
)
NOTES = [
    Post(
        id="n1",
        text="Rash after amoxicillin, stopped.",
        entities=[Entity(start=0, end=4, label="FINDING"), Entity(start=11, end=22, label="DRUG")],
        relations=[PostRelation(head=1, tail=0, label="causes")],
    ),
    Post(
        id="n2",
        text="HTN on lisinopril. Denies cough.",
        entities=[
            Entity(start=0, end=3, label="FINDING"),
            Entity(start=7, end=17, label="DRUG"),
            Entity(start=26, end=31, label="FINDING"),
        ],
        relations=[PostRelation(head=1, tail=0, label="treats")],
    ),
    Post(id="n3", text="Pt c/o nausea since metformin; HTN stable.", split="unlabelled"),
]


def test_a_clinical_scheme_end_to_end(command: Any, endpoint: LLMServer, tmp_path: Path) -> None:
    """From scheme.yml and a file of recorded answers, by the command, to located relations."""
    file, scheme = tmp_path / "notes.jsonl", tmp_path / "scheme.yml"
    file.write_text("".join(post.model_dump_json(exclude_none=True) + "\n" for post in NOTES))
    scheme.write_text(format_scheme(CLINICAL), encoding="utf-8")
    answer = {
        "reasoning": "Nausea began with metformin.",
        "entities": [
            entity("nausea", "FINDING"),
            entity("metformin", "DRUG"),
            entity("HTN", "FINDING", "medium"),
            entity("Pt", "PATIENT"),
        ],
        "relations": [
            {"head": "metformin", "label": "causes", "tail": "nausea", "sure": "high"},
            {"head": "metformin", "label": "treats", "tail": "diabetes", "sure": "low"},
        ],
    }
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text(json.dumps({"text": NOTES[2].text, "answer": answer}) + "\n")

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        known = (json.loads(line) for line in recorded.open(encoding="utf-8"))
        answers = {row["text"]: json.dumps(row["answer"]) for row in known}
        empty = json.dumps({"reasoning": "", "entities": [], "relations": []})
        return 200, answers.get(quoted(body, "post"), empty)

    endpoint.reply = reply
    store = tmp_path / "answers.sqlite"
    chosen = (
        "--source",
        "openai",
        "--scheme",
        scheme,
        "--dimension",
        "conclusion",
        "--task",
        "rel",
    )
    done = command("elicit", file, store, *chosen)
    assert done.exit_code == 0, done.output
    assert "the entity label 'PATIENT' is not in the scheme" in done.stdout
    assert "'diabetes', which are not both listed" in done.stdout
    found = load_answers(store, "rel")["n3"].conclusion
    assert found and found.entities and found.relations
    assert [(e.mention, e.label, e.sure) for e in found.entities] == [
        ("nausea", "FINDING", "high"),
        ("metformin", "DRUG", "high"),
        ("HTN", "FINDING", "medium"),
    ]
    (relation,) = found.relations
    assert (relation.head_start, relation.label, relation.tail_start) == (20, "causes", 7)
    body = next(b for b in endpoint.requests if quoted(b, "post") == NOTES[2].text)
    words = system(body)
    for part in (
        "You annotate clinical notes in English: you mark the entities that they name",
        "- DRUG: a substance that was given, by its name and without the dose\n",
        "- causes (DRUG, FINDING: the drug brought about the finding, in the writer's view)",
        CLINICAL.guidelines,
        '{"entities": [{"mention": "Rash", "label": "FINDING"}, {"mention": "amoxicillin"',
        '"relations": [{"head": "amoxicillin", "label": "causes", "tail": "Rash"}]}',
    ):
        assert part in words, part
    assert not re.search("social media|post(s|ed)?\\b(?!-)", words.replace("<post", ""))
    assert labels_asked(body) == {
        "entities": ["DRUG", "FINDING"],
        "relations": ["causes", "treats"],
    }
    # Nobody's text meets its own labels, and each prompt begins as the next one does.
    unlabelled = words[: words.index("Example 1")]
    assert all(system(other).startswith(unlabelled) for other in endpoint.requests)


def test_examples_of_pairs_show_their_relations() -> None:
    asked = NOTES[1].model_copy(update={"pairs": [(1, 0), (1, 2)], "split": "unlabelled"})
    with_pairs = NOTES[0].model_copy(update={"pairs": [(1, 0)]})
    for example in (NOTES[0], with_pairs):
        settings = QuestionSettings("rel", scheme=CLINICAL, examples=Examples(CLINICAL, [example]))
        prompt = settings.render(asked, "conclusion")
        assert prompt is not None
        shown, question = (message["content"] for message in prompt.messages)
        assert '{"head": "amoxicillin", "label": "causes", "tail": "Rash"}' in shown
        assert '[["lisinopril", "HTN"], ["lisinopril", "cough"]]' in question
        assert "three sentences. Then give the label of each pair" in question


def test_a_changed_scheme_asks_conclusions_anew_and_nothing_else(
    llm_server: LLMServer, store: AnswerStore
) -> None:
    both = {"noun": 1, "conclusion": 1}
    assert len(conclude(llm_server, store, TICKETS, variants=both)) == 2 * len(TICKETS)
    assert conclude(llm_server, store, TICKETS, variants=both) == []
    changed = GERMAN.model_copy(update={"guidelines": "Articles are part of a mention."})
    again = conclude(llm_server, store, TICKETS, variants=both, scheme=changed)
    assert len(again) == len(TICKETS) and all('"sure"' in user_text(b) for b in again)


def test_labels_that_come_later_ask_nothing_again(
    command: Any, endpoint: LLMServer, tmp_path: Path
) -> None:
    file, scheme = tmp_path / "posts.jsonl", tmp_path / "scheme.yml"
    scheme.write_text(format_scheme(GERMAN), encoding="utf-8")
    asking = (file, tmp_path / "a.sqlite", "--scheme", scheme, "--dimension", "conclusion")

    def ask(posts: list[Post], *more: str) -> tuple[int, str]:
        file.write_text("".join(post.model_dump_json(exclude_none=True) + "\n" for post in posts))
        endpoint.requests.clear()
        planned = command("plan", *asking, *more).stdout.split("conclusion")[1].split()[0]
        done = command("elicit", *asking, "--source", "openai", *more)
        assert done.exit_code == 0 and int(planned) == len(endpoint.requests), done.output
        return len(endpoint.requests), done.stdout

    unlabelled = [post.model_copy(update={"entities": None}) for post in TICKETS]
    assert ask(unlabelled)[0] == len(TICKETS)
    requests, shown = ask(TICKETS)
    assert requests == 0 and "see --new-examples" in shown
    requests, shown = ask(TICKETS, "--new-examples")
    assert requests == len(TICKETS) and "Example 1" in system(endpoint.requests[0])
    assert "see --new-examples" not in shown and ask(TICKETS)[0] == 0
    corrected = [labelled(TICKETS[0].text, ("Drucker", "PRODUKT")), *TICKETS[1:]]
    requests, shown = ask(corrected)
    assert requests == 0 and "see --new-examples" in shown
    # No text that is held out now is shown as an example. The one that is left as an example has
    # none, as at first.
    held_out = [post.model_copy(update={"split": "test"}) for post in TICKETS[:3]]
    assert ask([*held_out, *TICKETS[3:]])[0] == len(TICKETS) - 1
    assert not any(f"\n{held_out[0].text}\n" in system(body) for body in endpoint.requests)


def test_earlier_answers_are_handed_on(llm_server: LLMServer, store: AnswerStore) -> None:
    variants = {"conclusion": 1, "noun": 1, "sentence": 1}
    requests = conclude(llm_server, store, TICKETS, variants=variants, after=("noun", "sentence"))
    asked = [b for b in requests if '"sure"' in user_text(b)]
    assert len(asked) == len(TICKETS)
    for body in asked:
        post = quoted(body, "post")
        assert quoted(body, "sentence") == f"On this: {post}"
        assert quoted(body, "noun").startswith(f"{post.split()[0]}: word")


def test_variants_are_asked_and_kept_each(llm_server: LLMServer, store: AnswerStore) -> None:
    requests = conclude(llm_server, store, TICKETS, variants={"conclusion": 3})
    assert len(requests) == 3 * len(TICKETS)
    merged = store.answers()["neu"].conclusion
    assert merged and merged.entities and merged.entities[0].sure == "high"


def test_a_users_templates_go_first_and_are_checked(
    llm_server: LLMServer, store: AnswerStore, tmp_path: Path
) -> None:
    folder = tmp_path / "templates"
    (folder / "ner").mkdir(parents=True)
    own = folder / "ner" / "sentence.v9.jinja"
    own.write_text("{% block user %}Kurz: {{ post }}{% endblock %}", encoding="utf-8")
    (folder / ".DS_Store").touch()
    check_templates(folder)
    requests = conclude(llm_server, store, TICKETS[:1], variants={"sentence": 1}, templates=folder)
    assert user_text(requests[0]).startswith("Kurz: <post-")
    for name, text, problem in (
        ("ner/sentence.v9.jinja", "{% block user %}{{ nobody }}{% endblock %}", "nobody"),
        ("ner/sentence.v9.jinja", "{% block system %}x{% endblock %}", "block `user`"),
        ("ner/sentence.v9.jinja", "{% block user %}{{ post {% endblock %}", "expected"),
        ("ner/sentence.jinja", "x", "name"),
        ("ner/sentense.v1.jinja", "x", "name"),
        ("scheme.v2.jinja", "x", "name"),
        ("ner/noun.v1.jinja", "{% block user %}{{ post }}{% endblock %}", "there is ner/noun.v2"),
        ("ner/sentence.v9.jinja", "{% block user %}Kurz{% endblock %}", "not show the post"),
        ("ner/sentence.v9.jinja", "{% block user %}{{ post + 1 }}{% endblock %}", "concatenate"),
        (
            "ner/sentence.v9.jinja",
            "{% block user %}{{ post }}{% if not caption %}{{ nobody }}{% endif %}{% endblock %}",
            "'nobody' is undefined",
        ),
    ):
        broken = folder / name
        broken.write_text(text, encoding="utf-8")
        prompts._environment.cache_clear()
        with pytest.raises(MMCoTError) as error:
            check_templates(folder)
        assert problem in str(error.value) and broken.name in str(error.value)
        broken.unlink()


def test_definitions_are_written_by_the_model(llm_server: LLMServer) -> None:
    draft = draft_scheme(TICKETS).model_copy(update={"domain": "support tickets"})
    llm_server.reply = lambda body: (
        200,
        json.dumps({"PRODUKT": "what breaks", "ORT": "where it breaks"}),
    )
    settings = OpenAISettings("m", base_url=llm_server.url, api_key="sk-test-0815")
    defined = define_labels(draft, OpenAISource(settings), TICKETS)
    assert defined.entities == {"ORT": "where it breaks", "PRODUKT": "what breaks"}
    llm_server.reply = lambda body: (200, json.dumps({"PRODUKT": "what breaks"}))
    with pytest.raises(MMCoTError, match="ORT"):
        define_labels(draft, OpenAISource(settings), TICKETS)
