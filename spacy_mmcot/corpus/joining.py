"""Rows that judge a pair each, joined into posts that hold all pairs of their text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..types import Answers, Entity, NounItem, Post, PostRelation
from .findings import Findings
from .rows import Row

Place = tuple[int, int]

_OVERLAP = "rows with a mention that overlaps another row's, kept as a post of their own"
_REPEATED = "rows that repeat a pair of their post, counted once"
_CONTRARY = "rows that judge a pair of their post otherwise, of which the first one counts"


def join_rows(rows: Iterable[Row], findings: Findings) -> list[Row]:
    """Rows of one group, text and split become one post, in the place of the first of them, whose
    id, number and other fields it has; rows without a group stay as they are.

    The post's entities stand in text order, its pairs and relations in the order of the rows. Noun
    items are united by mention, and sentences strung together. A row whose mention overlaps
    another one of the post, which entities of a Doc cannot, begins a further post.
    """
    parts: list[Row | _Joint] = []
    joints: dict[tuple[str, str, str], list[_Joint]] = {}
    for row in rows:
        if row.group is None:
            parts.append(row)
            continue
        same = joints.setdefault((row.group, row.post.text, row.post.split), [])
        joint = next((joint for joint in same if joint.has_room(row.post)), None)
        if joint is None:
            if same:
                findings.change(_OVERLAP, f"row {row.number}: {row.post.id}")
            joint = _Joint()
            same.append(joint)
            parts.append(joint)
        joint.add(row, findings)
    return [part if isinstance(part, Row) else part.row() for part in parts]


@dataclass
class _Joint:
    rows: list[Row] = field(default_factory=list)
    entities: dict[Place, Entity] = field(default_factory=dict)
    # Each pair's label, None where it has no relation.
    labels: dict[tuple[Place, Place], str | None] = field(default_factory=dict)

    def has_room(self, post: Post) -> bool:
        return all(
            (new.start, new.end) == place or new.end <= place[0] or place[1] <= new.start
            for new in post.entities or []
            for place in self.entities
        )

    def add(self, row: Row, findings: Findings) -> None:
        post = row.post
        self.rows.append(row)
        places = [(entity.start, entity.end) for entity in post.entities or []]
        for place, entity in zip(places, post.entities or [], strict=True):
            self.entities.setdefault(place, entity)
        relations = {(r.head, r.tail): r.label for r in post.relations or []}
        for head, tail in post.pairs or []:
            ends, label = (places[head], places[tail]), relations.get((head, tail))
            if ends not in self.labels:
                self.labels[ends] = label
            elif self.labels[ends] == label:
                findings.change(_REPEATED, f"row {row.number}: {post.id}")
            else:
                findings.lose(_CONTRARY, f"row {row.number}: {post.id}: {label}")

    def row(self) -> Row:
        """The joined row."""
        first = self.rows[0]
        order = sorted(self.entities)
        index = {place: i for i, place in enumerate(order)}
        pairs = [(index[head], index[tail]) for head, tail in self.labels]
        relations = [
            PostRelation(head=head, tail=tail, label=label)
            for (head, tail), label in zip(pairs, self.labels.values(), strict=True)
            if label is not None
        ]
        update = {
            "entities": [self.entities[place] for place in order],
            "relations": relations,
            "pairs": pairs,
        }
        post = first.post.model_copy(update=update)
        return Row(first.number, post, self._answers(post.id))

    def _answers(self, name: str) -> Answers | None:
        known = [row.answers for row in self.rows if row.answers]
        if not known:
            return None
        nouns: dict[str, NounItem] = {}
        for answers in known:
            for item in answers.noun or []:
                nouns.setdefault(item.mention, item)
        named = any(answers.noun is not None for answers in known)
        sentences = dict.fromkeys(answers.sentence for answers in known if answers.sentence)
        return Answers(
            id=name,
            noun=list(nouns.values()) if named else None,
            sentence=" ".join(sentences) or None,
        )
