"""One post of all MNRE rows about a tweet, each of which judges one pair of its mentions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from spacy_mmcot.corpus.posts import Findings, Row
from spacy_mmcot.types import Answers, Conclusion, Entity, NounItem, Post, PostRelation

_JOINED = "rows joined into the post of an earlier row"
_OVERLAP = "rows with a mention that overlaps another row's, kept as a post of their own"
_REPEATED = "rows that repeat a pair of their post, counted once"
_CONTRARY = "rows that contradict an earlier row about the same pair, left out"

Place = tuple[int, int]


def join_rows(rows: Iterable[Row], findings: Findings) -> list[Row]:
    """The rows with those of one group, text and split joined into one post, which takes the place,
    id and number of the first of them. Rows without a group stay as they are.

    A post's entities are in text order, its pairs and relations in the order of the rows. Of
    several noun items about one mention the first counts; sentences are joined by spaces. A row
    with a mention that overlaps another one of the post, which a Doc does not allow, begins a
    further post.
    """
    parts: list[Row | list[Row]] = []
    joints: dict[tuple[str, str, str], list[list[Row]]] = {}
    for row in rows:
        if row.group is None:
            parts.append(row)
            continue
        same = joints.setdefault((row.group, row.post.text, row.post.split), [])
        joint = next((joint for joint in same if _has_room(joint, row.post)), None)
        if joint is not None:
            findings.change(_JOINED, f"row {row.number}: {row.post.id}")
            joint.append(row)
            continue
        if same:
            findings.change(_OVERLAP, f"row {row.number}: {row.post.id}")
        same.append([row])
        parts.append(same[-1])
    return [part if isinstance(part, Row) else _join(part, findings) for part in parts]


def _list_places(post: Post) -> list[Place]:
    return [(entity.start, entity.end) for entity in post.entities or []]


def _has_room(rows: Sequence[Row], post: Post) -> bool:
    """Whether each entity of the post is one of the rows' entities or overlaps none of them."""
    taken = {place for row in rows for place in _list_places(row.post)}
    return all(
        new == place or new[1] <= place[0] or place[1] <= new[0]
        for new in _list_places(post)
        for place in taken
    )


def _join(rows: Sequence[Row], findings: Findings) -> Row:
    """One row of all."""
    entities: dict[Place, Entity] = {}
    # Each pair's label, None where it has no relation.
    labels: dict[tuple[Place, Place], str | None] = {}
    for row in rows:
        places = _list_places(row.post)
        entities = dict(zip(places, row.post.entities or [], strict=True)) | entities
        relations = {(r.head, r.tail): r.label for r in row.post.relations or []}
        for head, tail in row.post.pairs or []:
            ends, label = (places[head], places[tail]), relations.get((head, tail))
            if ends not in labels:
                labels[ends] = label
            elif labels[ends] == label:
                findings.change(_REPEATED, f"row {row.number}: {row.post.id}")
            else:
                findings.lose(_CONTRARY, f"row {row.number}: {row.post.id}: {label}")
    order = sorted(entities)
    pairs = {(order.index(head), order.index(tail)): x for (head, tail), x in labels.items()}
    update = {
        "entities": [entities[place] for place in order],
        "pairs": list(pairs),
        "relations": [
            PostRelation(head=head, tail=tail, label=label)
            for (head, tail), label in pairs.items()
            if label is not None
        ],
    }
    post = rows[0].post.model_copy(update=update)
    return rows[0]._replace(post=post, answers=_join_answers(post.id, rows))


def _join_answers(name: str, rows: Sequence[Row]) -> Answers | None:
    known = [row.answers for row in rows if row.answers]
    if not known:
        return None
    items = [answers.noun for answers in known if answers.noun is not None]
    nouns: dict[str, NounItem] = {}
    for item in itertools.chain.from_iterable(items):
        nouns.setdefault(item.mention, item)
    concluded = [answers.conclusion.relations or () for answers in known if answers.conclusion]
    relations = list(itertools.chain.from_iterable(concluded))
    sentences = dict.fromkeys(answers.sentence for answers in known if answers.sentence)
    return Answers(
        id=name,
        noun=list(nouns.values()) if items else None,
        sentence=" ".join(sentences) or None,
        conclusion=Conclusion(relations=relations) if relations else None,
    )
