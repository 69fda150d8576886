"""From scores to entities and relations, in numpy: the best legal tag sequence of a Doc with exact
probabilities, and the labels of pairs of mentions.

Tags are BIO: tag 0 is O, then each label's B and I. `transitions` is (tags + 1, tags + 1) in log
space; its last row and column stand for the boundary of the sequence, as in `model/tagger.py`,
which trains it. All sums are in double precision.

Sources: Rabiner (1989) for forward-backward and Viterbi.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.attrs import ENT_IOB, ENT_TYPE
from spacy.tokens import Doc, Span

from ..corpus.extensions import get_pairs, get_relations
from ..model.wordpieces import group_by_length
from ..types import DocPairs, Relation

Array = NDArray[Any]

# Tokens of a padded batch that is decoded at once: a long Doc is not padded against short ones.
MAX_PADDED = 2**16
# The largest difference of log scores whose probabilities still add up.
_MAX_SPREAD = 700.0
_ILLEGAL = -1e4


class Mention(NamedTuple):
    """A predicted mention: token offsets, end exclusive, and its probability."""

    start: int
    end: int
    label: str
    score: float


class Mentions(list[Mention]):
    """The mentions of one Doc, in text order, and the probability of the tag sequence that they
    come from: that all are correct and none is missing."""

    def __init__(self, probability: float = 1.0):
        super().__init__()
        self.probability = probability


class Lattice(NamedTuple):
    """Forward and backward scores, (batch, tokens, tags) each, and log Z, (batch,).

    `forward` holds the emission of its own token, `backward` does not.
    """

    forward: Array
    backward: Array
    log_z: Array


def decode_mentions(
    docs: Sequence[Doc], emissions: Mapping[int, Array], transitions: Array, labels: Sequence[str]
) -> list[Mentions]:
    """The mentions of each Doc. emissions: (tokens, tags) of each Doc that has a token, by its
    index. Mentions have no white space at their ends."""
    mentions = [Mentions() for _ in docs]
    for indexes, padded, lengths in pad_batches(emissions):
        paths = find_best_paths(padded, lengths, transitions)
        lattice = compute_lattice(padded, lengths, transitions)
        chosen = score_paths(padded, lengths, transitions, paths)
        probabilities = numpy.exp(numpy.minimum(chosen - lattice.log_z, 0.0)).tolist()
        spans = [
            (row, start, end, 1 + 2 * label)
            for row, path in enumerate(paths)
            for start, end, label in find_spans(path)
        ]
        chances = numpy.exp(score_spans(lattice, padded, lengths, transitions, spans)).tolist()
        for i, probability in zip(indexes, probabilities, strict=True):
            mentions[i].probability = probability
        for (row, start, end, begin), score in zip(spans, chances, strict=True):
            i = indexes[row]
            trimmed = _trim(docs[i], start, end)
            if trimmed is not None:
                mentions[i].append(Mention(*trimmed, labels[(begin - 1) // 2], score))
    return mentions


def pad_batches(emissions: Mapping[int, Array]) -> Iterator[tuple[list[int], Array, Array]]:
    """Batches of Docs of similar length: their indexes, emissions padded to (docs, tokens, tags),
    and lengths (docs,). emissions: (tokens, tags) of each Doc by its index."""
    filled = list(emissions)
    for group in group_by_length(list(map(len, emissions.values())), MAX_PADDED):
        indexes = [filled[row] for row in group]
        lengths = numpy.array([len(emissions[i]) for i in indexes])
        padded = numpy.zeros((len(group), int(lengths.max()), emissions[indexes[0]].shape[1]))
        for row, i in enumerate(indexes):
            padded[row, : lengths[row]] = emissions[i]
        yield indexes, padded, lengths


def find_best_paths(emissions: Array, lengths: Array, transitions: Array) -> list[list[int]]:
    """Viterbi: the best tag sequence of each sentence, always a legal one. emissions: (batch,
    tokens, tags); lengths: (batch,)."""
    # Tags first: the maximum over the first dimension is several times faster.
    emitted = numpy.ascontiguousarray(emissions.transpose(1, 2, 0))
    steps = transitions[:-1, :-1, None]
    score = transitions[-1, :-1, None] + emitted[0]
    scores = [score]
    for row in emitted[1:]:
        score = (score[:, None] + steps).max(axis=0) + row
        scores.append(score)
    table = numpy.stack(scores).transpose(0, 2, 1)
    last = table[lengths - 1, numpy.arange(len(lengths))] + transitions[:-1, -1]
    tag = last.argmax(axis=1)
    # Backwards from the batch's last token; a shorter sentence starts at its own last token.
    into = numpy.ascontiguousarray(transitions[:-1, :-1].T)
    tags = [tag]
    for t in range(len(table) - 2, -1, -1):
        before = (table[t] + into[tag]).argmax(axis=1)
        tag = numpy.where(t < lengths - 1, before, tag)
        tags.append(tag)
    paths = numpy.stack(tags[::-1], axis=1)
    return [path[:n].tolist() for path, n in zip(paths, lengths, strict=True)]


def compute_lattice(emissions: Array, lengths: Array, transitions: Array) -> Lattice:
    """Forward and backward scores. emissions: (batch, tokens, tags); lengths: (batch,), at least 1.
    Positions past a sequence's length have no meaning.

    A step is a matrix product of probabilities, relative to the best tag of the token, unless the
    scores are too far apart. What no path reaches then scores -inf.
    """
    emissions, transitions = emissions.astype("float64"), transitions.astype("float64")
    steps = transitions[:-1, :-1]
    near = _measure_spread(emissions, transitions) < _MAX_SPREAD
    ahead, back = (_make_step(part, near) for part in (steps, steps.T))
    with numpy.errstate(divide="ignore"):
        alpha = transitions[-1, :-1] + emissions[:, 0]
        rows = [alpha]
        for t in range(1, emissions.shape[1]):
            alpha = ahead(alpha) + emissions[:, t]
            rows.append(alpha)
        forward = numpy.stack(rows, axis=1)
        last = forward[numpy.arange(len(lengths)), lengths - 1]
        log_z = _logsumexp(last + transitions[:-1, -1], axis=1)
        ends = transitions[:-1, -1]
        beta = numpy.broadcast_to(ends, (len(emissions), len(ends)))
        rows = [beta]
        for t in range(emissions.shape[1] - 2, -1, -1):
            inner = back(emissions[:, t + 1] + beta)
            beta = numpy.where((lengths - 1 <= t)[:, None], ends, inner)
            rows.append(beta)
    return Lattice(forward, numpy.stack(rows[::-1], axis=1), log_z)


def compute_marginals(lattice: Lattice) -> Array:
    """P(tag of token t | sentence), (batch, tokens, tags)."""
    return numpy.exp(lattice.forward + lattice.backward - lattice.log_z[:, None, None])


def score_paths(
    emissions: Array, lengths: Array, transitions: Array, paths: Sequence[Sequence[int]]
) -> Array:
    """The score of one tag sequence of each sentence, (batch,); minus log Z it is the sequence's
    log probability."""
    boundary = len(transitions) - 1
    scores = numpy.zeros(len(paths))
    for row, path in enumerate(paths):
        tags = numpy.array([boundary, *path, boundary])
        emitted = emissions[row, numpy.arange(len(path)), tags[1:-1]].sum()
        scores[row] = emitted + transitions[tags[:-1], tags[1:]].sum()
    return scores


def score_spans(
    lattice: Lattice,
    emissions: Array,
    lengths: Array,
    transitions: Array,
    spans: Sequence[tuple[int, int, int, int]],
) -> Array:
    """log P(the tokens [start, end) form exactly one mention | sentence) of each span, (spans,),
    summed over all tag sequences that agree.

    spans: (sentence, start, end, index of the label's B- tag) each. Its I- tag comes next.
    """
    row, start, end, begin = numpy.array(spans, dtype="int64").reshape(-1, 4).T
    inside = begin + 1
    longer = end - start - 1
    sums = emissions.cumsum(axis=1)
    emitted = sums[row, end - 1, inside] - sums[row, start, inside]
    steps = (longer > 0) * transitions[begin, inside]
    steps = steps + numpy.maximum(longer - 1, 0) * transitions[inside, inside]
    last = numpy.where(longer > 0, inside, begin)
    # What may follow: the end, or any tag but the one that continues the mention.
    after = numpy.minimum(end, emissions.shape[1] - 1)
    exits = transitions[last, :-1] + emissions[row, after] + lattice.backward[row, after]
    exits[numpy.arange(len(row)), inside] = -numpy.inf
    ends = end == lengths[row]
    closed = numpy.where(ends, transitions[last, -1], _logsumexp(exits, axis=1))
    total = lattice.forward[row, start, begin] + emitted + steps + closed - lattice.log_z[row]
    return numpy.minimum(total, 0.0)


def find_spans(path: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, end, label index) of the mentions in a legal path."""
    starts = [token for token, tag in enumerate(path) if tag % 2]
    # Where a mention may end: at O and at each B.
    stops = [token for token, tag in enumerate([*path, 0]) if tag == 0 or tag % 2]
    return [(i, stops[bisect_right(stops, i)], (path[i] - 1) // 2) for i in starts]


def _make_step(steps: Array, near: bool) -> Callable[[Array], Array]:
    """From the scores of one token's tags, (batch, tags), to those of its neighbour's. steps:
    (tags, tags); near: whether probabilities can be added."""
    if not near:
        return lambda scores: _logsumexp(scores[:, :, None] + steps, axis=1)
    chances = numpy.exp(steps)

    def step(scores: Array) -> Array:
        top = scores.max(axis=1, keepdims=True)
        return numpy.log(numpy.exp(scores - top) @ chances) + top

    return step


def _logsumexp(scores: Array, axis: int) -> Array:
    top = scores.max(axis=axis, keepdims=True)
    with numpy.errstate(divide="ignore"):
        return numpy.log(numpy.exp(scores - top).sum(axis=axis)) + top.squeeze(axis)


def _measure_spread(emissions: Array, transitions: Array) -> float:
    """An upper bound on the difference of the forward or backward scores of two tags of one token
    that a path can reach. Two steps connect any tags: an I tag follows its B tag alone, which
    follows all."""
    legal = transitions[transitions > _ILLEGAL / 2]
    tokens = emissions.max(axis=2) - emissions.min(axis=2)
    return 2 * float(tokens.max() + legal.max() - legal.min())


def _trim(doc: Doc, start: int, end: int) -> tuple[int, int] | None:
    """The span without white space at its ends, which spaCy does not allow there; None where it
    is nothing else."""
    while start < end and doc[start].is_space:
        start += 1
    while start < end and doc[end - 1].is_space:
        end -= 1
    return (start, end) if start < end else None


def set_mentions(doc: Doc, mentions: Mentions, overwrite: bool) -> None:
    """Write doc.ents, each new entity's `span._.mmcot_score`, and `doc._.mmcot_confidence`.

    overwrite: replace entities that are already set. Otherwise they stay, and a mention that
        overlaps one of them, or a blocked token, is dropped.
    """
    doc._.mmcot_confidence = mentions.probability
    is_fresh = overwrite or not doc.has_annotation("ENT_IOB")
    kept = [] if is_fresh else list(doc.ents)
    blocked = [] if is_fresh else _find_blocked(doc)
    taken = {i for span in kept for i in range(span.start, span.end)}.union(blocked)
    spans = []
    for mention in mentions:
        if taken.isdisjoint(range(mention.start, mention.end)):
            span = Span(doc, mention.start, mention.end, label=mention.label)
            span._.mmcot_score = mention.score
            spans.append(span)
    blocked_spans = [doc[i : i + 1] for i in blocked]
    doc.set_ents([*kept, *spans], blocked=blocked_spans, default="outside")


def _find_blocked(doc: Doc) -> list[int]:
    """The tokens that are blocked from being in an entity (see `Doc.set_ents`)."""
    tags: Any = doc.to_array([ENT_IOB, ENT_TYPE])
    return numpy.flatnonzero((tags[:, 0] == 3) & (tags[:, 1] == 0)).tolist()


# Head type -> tail type -> relation labels.
Legal = Mapping[str, Mapping[str, Sequence[str]]]
# (start token, end token, label), end exclusive
MentionSpan = tuple[int, int, str]


class PairPrediction(NamedTuple):
    """A pair of mentions of one Doc with its likeliest label and that label's probability. head and
    tail are (start, end) token offsets, end exclusive."""

    head: tuple[int, int]
    tail: tuple[int, int]
    label: str
    score: float


def find_candidates(doc: Doc, max_distance: int) -> DocPairs:
    """The ordered pairs of the Doc's entities with at most `max_distance` tokens between them, of
    which only those that `get_pairs` names, if it does."""
    mentions = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    asked = get_pairs(doc)
    if asked is None:
        return DocPairs(doc, mentions, _find_near_pairs(mentions, max_distance))
    index = {(start, end): i for i, (start, end, _) in enumerate(mentions)}
    found = [(index.get((h.start, h.end)), index.get((t.start, t.end))) for h, t in asked]
    known = dict.fromkeys((h, t) for h, t in found if h is not None and t is not None and h != t)
    near = [(h, t) for h, t in known if _measure_gap(mentions[h], mentions[t]) <= max_distance]
    return DocPairs(doc, mentions, numpy.array(near, dtype="int64").reshape(-1, 2))


def _find_near_pairs(mentions: Sequence[MentionSpan], max_distance: int) -> NDArray[numpy.int64]:
    """Both directions of every pair that is near enough, (pairs, 2). Mentions are sorted and
    disjoint."""
    n = len(mentions)
    if n < 2:
        return numpy.zeros((0, 2), dtype="int64")
    starts, ends = numpy.array([mention[:2] for mention in mentions], dtype="int64").T
    distance = min(max_distance, int(ends[-1]))
    # (mentions,): how many mentions follow each one within the distance.
    after = numpy.searchsorted(starts, ends + distance, side="right") - numpy.arange(n) - 1
    after = numpy.maximum(after, 0)
    left = numpy.repeat(numpy.arange(n), after)
    right = left + 1 + numpy.arange(len(left)) - numpy.repeat(numpy.cumsum(after) - after, after)
    # Each pair, followed by the same with head and tail exchanged.
    return numpy.stack([left, right, right, left], axis=1).reshape(-1, 2)


def _measure_gap(left: MentionSpan, right: MentionSpan) -> int:
    """The number of tokens between two disjoint mentions, in either order."""
    return max(left[0] - right[1], right[0] - left[1])


def mask_legal(entry: DocPairs, legal: Legal | None, labels: Sequence[str]) -> NDArray[numpy.bool_]:
    """bool (pairs, 1 + labels): which labels each pair may have. The first, no relation, is always
    allowed; without a map all are."""
    allowed = numpy.ones((len(entry.pairs), 1 + len(labels)), dtype=bool)
    if legal is not None:
        types = [mention[2] for mention in entry.mentions]
        rows = {
            (head, tail): [label in legal.get(head, {}).get(tail, ()) for label in labels]
            for head in set(types)
            for tail in set(types)
        }
        for i, (head, tail) in enumerate(entry.pairs.tolist()):
            allowed[i, 1:] = rows[types[head], types[tail]]
    return allowed


def pick_relations(
    entries: Sequence[DocPairs], probabilities: Array, labels: Sequence[str], threshold: float
) -> list[list[PairPrediction]]:
    """The pairs of each entry that have a relation, in the order of their heads.

    probabilities: (pairs, 1 + labels) of all entries, the first column no relation.
    threshold: a pair gets its likeliest label where the probability of any relation reaches this.
    """
    result: list[list[PairPrediction]] = [[] for _ in entries]
    if not len(probabilities):
        return result
    # The sum rather than 1 - P(no relation), which loses precision near 0.
    chances = probabilities[:, 1:].sum(axis=1)
    # A pair whose labels are all illegal has 0, which does not reach a threshold of 0 either.
    related = numpy.flatnonzero((chances >= threshold) & (chances > 0))
    best = probabilities[related, 1:].argmax(axis=1)
    scores = probabilities[related, 1 + best]
    counts = [len(entry.pairs) for entry in entries]
    owners = numpy.repeat(numpy.arange(len(entries)), counts)[related]
    pairs = numpy.concatenate([entry.pairs for entry in entries])[related]
    for pair, label, score, i in zip(pairs, best, scores, owners, strict=True):
        head, tail = (entries[i].mentions[m] for m in pair)
        result[i].append(PairPrediction(head[:2], tail[:2], labels[label], float(score)))
    return [sorted(found, key=lambda p: (p.head, p.tail)) for found in result]


def set_predictions(doc: Doc, predictions: Sequence[PairPrediction], overwrite: bool) -> None:
    """Write `doc._.mmcot_rel`. overwrite: replace relations that are already set; otherwise they
    stay."""
    kept = [] if overwrite else list(get_relations(doc))
    taken = {(r.head.start, r.head.end, r.tail.start, r.tail.end) for r in kept}
    spans = {(ent.start, ent.end): ent for ent in doc.ents}
    new = [
        Relation(spans[p.head], spans[p.tail], p.label, p.score)
        for p in predictions
        if (*p.head, *p.tail) not in taken
    ]
    doc._.mmcot_rel = [*kept, *new]
