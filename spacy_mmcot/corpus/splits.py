"""Which posts train, and which are held out: splitting a corpus, and its labels by split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from ..types import Post, Split, make_text_key
from .posts import Findings, Row

_SEEN = "training posts whose text is also held out"


def split_rows(rows: Sequence[Row], shares: Mapping[Split, float]) -> list[Row]:
    """The rows, with shares of the posts of the split `train` moved to other splits.

    The posts of one document, and those of one text, stay together. Each split gets its share of
    each label, the rarest first, and of the posts without a label (iterative stratification:
    Sechidis et al., ECML 2011). The same rows are split in the same way.

    shares: from 0 to 1, their sum below 1.
    """
    groups = _group_rows([i for i, row in enumerate(rows) if row.post.split == "train"], rows)
    labels = [Counter(x for i in group for x in list_labels(rows[i].post)) for group in groups]
    totals: Counter[str] = sum(labels, Counter())
    quota: dict[Split, float] = {**shares, "train": 1 - sum(shares.values())}
    # How much of each label each split still wants; "" stands for posts.
    wants = {
        split: {"": share * sum(map(len, groups)), **{x: share * n for x, n in totals.items()}}
        for split, share in quota.items()
    }
    chosen: dict[int, Split] = {}
    ordered = sorted(range(len(groups)), key=lambda g: _hash_text(rows[groups[g][0]].post.text))
    left = dict.fromkeys(ordered)
    for label in [*sorted(totals, key=lambda x: (totals[x], x)), ""]:
        for g in [g for g in left if not label or label in labels[g]]:
            split = max(quota, key=lambda s: (wants[s][label], wants[s][""], s == "train"))
            del left[g]
            chosen |= dict.fromkeys(groups[g], split)
            wants[split][""] -= len(groups[g])
            for name, count in labels[g].items():
                wants[split][name] -= count
    return [
        row._replace(post=row.post.model_copy(update={"split": chosen[i]})) if i in chosen else row
        for i, row in enumerate(rows)
    ]


def _group_rows(indexes: Sequence[int], rows: Sequence[Row]) -> list[list[int]]:
    """The indexes of rows that must stay together: parts of one document, or posts of one text, up
    to case and punctuation."""
    parent = {i: i for i in indexes}

    def find_root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first: dict[object, int] = {}
    for i in indexes:
        for key in (
            rows[i].group and ("group", rows[i].group),
            ("text", make_text_key(rows[i].post.text)),
        ):
            if key is not None:
                parent[find_root(i)] = find_root(first.setdefault(key, i))
    groups: dict[int, list[int]] = defaultdict(list)
    for i in indexes:
        groups[find_root(i)].append(i)
    return list(groups.values())


def _hash_text(text: str) -> bytes:
    return sha256(text.encode()).digest()


def list_labels(post: Post) -> list[str]:
    """The labels of a post's entities and relations; none where its labels are not used."""
    if post.split == "unlabelled":
        return []
    return [item.label for item in [*(post.entities or ()), *(post.relations or ())]]


def count_labels(posts: Iterable[Post]) -> dict[Split, Counter[str]]:
    """How often each label occurs in each split."""
    counts: dict[Split, Counter[str]] = defaultdict(Counter)
    for post in posts:
        counts[post.split].update(list_labels(post))
    return counts


def check_labels(posts: Sequence[Post], findings: Findings) -> None:
    """Report labels that differ in case, space or punctuation alone, labels that are held out and
    that no training post has, and training posts whose text is also held out."""
    counts = count_labels(posts)
    every: Counter[str] = sum(counts.values(), Counter())
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(every):
        alike[re.sub(r"[\W_]+", "", label).casefold()].append(label)
    for names in alike.values():
        if len(names) > 1:
            shown = ", ".join(f"{name!r} ({every[name]})" for name in names)
            findings.change("labels that look like the same one", shown)
    if counts["train"]:
        for label in sorted(every.keys() - counts["train"].keys()):
            where = ", ".join(split for split in counts if label in counts[split])
            findings.change("labels that no training post has", f"{label!r}, in {where}")
    held_out = {make_text_key(post.text) for post in posts if post.split in ("dev", "test")}
    for post in posts:
        if (
            post.split == "train"
            and post.entities is not None
            and make_text_key(post.text) in held_out
        ):
            findings.change(_SEEN, post.id)
