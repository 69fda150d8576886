"""From tag scores to entities, in numpy: the best legal tag sequence of a Doc with exact
probabilities. Standalone wheels carry it.

Tags are BIO: tag 0 is O, then each label's B and I. `transitions` is (tags + 1, tags + 1) in log
space; its last row and column stand for the boundary of the sequence, as in `model/tagger.py`,
which trains it. All sums are in double precision.

Sources: Rabiner (1989) for forward-backward and Viterbi.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from spacy.attrs import ENT_IOB, ENT_TYPE, ORTH
from spacy.strings import get_string_id
from spacy.tokens import Doc, Span

from ..model.wordpieces import group_by_length

Array = NDArray[Any]

# Tokens of a sentence whose certainty is looked at by itself.
MIN_SENTENCE, MAX_SENTENCE = 5, 64
_END_IDS = frozenset(map(get_string_id, (*".!?…。！？", "...", "\n", "\n\n")))

# A padded batch that is decoded at once has at most so many tokens, and its shortest Doc at least
# this share of its longest's: a long Doc is not padded against short ones.
MAX_PADDED, MIN_FILL = 2**16, 0.3
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
    """The mentions of one Doc, in text order, and the probability of the best tag sequence, which
    they come from: that all in it are correct and none is missing. weakest: that of the sentence
    where it is lowest."""

    def __init__(self, probability: float = 1.0, weakest: float = 1.0):
        super().__init__()
        self.probability, self.weakest = probability, weakest


class Lattice(NamedTuple):
    """A padded batch with its forward and backward scores. `forward` holds the emission of its own
    token, `backward` does not. Positions past a sequence's length have no meaning."""

    emissions: Array  # (batch, tokens, tags)
    lengths: Array  # (batch,), at least 1
    transitions: Array  # (tags + 1, tags + 1)
    forward: Array  # (batch, tokens, tags)
    backward: Array  # (batch, tokens, tags)
    log_z: Array  # (batch,)


def decode_mentions(
    docs: Sequence[Doc],
    emissions: Mapping[int, Array],
    transitions: Array,
    labels: Sequence[str],
    threshold: float,
) -> list[Mentions]:
    """The mentions of each Doc whose probability reaches the threshold. emissions: (tokens, tags)
    of each Doc that has a token, by its index. Mentions have no white space at their ends."""
    mentions = [Mentions() for _ in docs]
    for indexes, padded, lengths in pad_batches(emissions):
        lattice = compute_lattice(padded, lengths, transitions)
        paths = find_best_paths(padded, lengths, transitions)
        found = [mentions[i] for i in indexes]
        stretches = [(row, 0, len(path)) for row, path in enumerate(paths)]
        for row, path in enumerate(paths):
            stretches += [(row, *ends) for ends in _find_sentences(docs[indexes[row]], path)]
        chances = numpy.exp(score_stretches(lattice, paths, stretches)).tolist()
        for one, chance in zip(found, chances, strict=False):
            one.probability = chance
        for (row, *_), chance in zip(stretches[len(paths) :], chances[len(paths) :], strict=True):
            found[row].weakest = min(found[row].weakest, chance)
        spans = [(row, *ends) for row, path in enumerate(paths) for ends in _find_spans(path)]
        scores = numpy.exp(score_mentions(lattice, paths, spans)).tolist()
        for (row, start, end), score in zip(spans, scores, strict=True):
            trimmed = _trim(docs[indexes[row]], start, end)
            if trimmed is not None and score >= threshold:
                found[row].append(Mention(*trimmed, labels[paths[row][start] // 2], score))
    return mentions


def compute_marginals(emissions: Mapping[int, Array], transitions: Array) -> dict[int, Array]:
    """P(tag of token t | sentence), (tokens, tags), of each Doc. emissions: as of
    `decode_mentions`."""
    marginals = {}
    for indexes, padded, lengths in pad_batches(emissions):
        lattice = compute_lattice(padded, lengths, transitions)
        logs = lattice.forward + lattice.backward - lattice.log_z[:, None, None]
        marginals.update({i: numpy.exp(logs[row, : lengths[row]]) for row, i in enumerate(indexes)})
    return marginals


def pad_batches(emissions: Mapping[int, Array]) -> Iterator[tuple[list[int], Array, Array]]:
    """Batches of Docs of similar length: their indexes, emissions padded to (docs, tokens, tags),
    and lengths (docs,). emissions: (tokens, tags) of each Doc by its index."""
    filled = list(emissions)
    for group in group_by_length([len(emissions[i]) for i in filled], MAX_PADDED, MIN_FILL):
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
    scores = [transitions[-1, :-1, None] + emitted[0]]
    for row in emitted[1:]:
        scores.append((scores[-1][:, None] + steps).max(axis=0) + row)
    table = numpy.stack(scores).transpose(0, 2, 1)
    last = table[lengths - 1, numpy.arange(len(lengths))] + transitions[:-1, -1]
    # Backwards from the batch's last token; a shorter sentence starts at its own last token.
    into = numpy.ascontiguousarray(transitions[:-1, :-1].T)
    tags = [last.argmax(axis=1)]
    for t in range(len(table) - 2, -1, -1):
        before = (table[t] + into[tags[-1]]).argmax(axis=1)
        tags.append(numpy.where(t < lengths - 1, before, tags[-1]))
    paths = numpy.stack(tags[::-1], axis=1)
    return [path[:n].tolist() for path, n in zip(paths, lengths, strict=True)]


def compute_lattice(emissions: Array, lengths: Array, transitions: Array) -> Lattice:
    """emissions: (batch, tokens, tags); lengths: (batch,), at least 1; transitions: (tags + 1,
    tags + 1).

    A step is a matrix product of probabilities, relative to the best tag of the token, unless the
    scores are too far apart. What no path reaches then scores -inf.
    """
    emissions, transitions = emissions.astype("float64"), transitions.astype("float64")
    steps = transitions[:-1, :-1]
    near = _measure_spread(emissions, transitions) < _MAX_SPREAD
    ahead, back = (_make_step(part, near) for part in (steps, steps.T))
    with numpy.errstate(divide="ignore"):
        rows = [transitions[-1, :-1] + emissions[:, 0]]
        for t in range(1, emissions.shape[1]):
            rows.append(ahead(rows[-1]) + emissions[:, t])
        forward = numpy.stack(rows, axis=1)
        last = forward[numpy.arange(len(lengths)), lengths - 1]
        log_z = _logsumexp(last + transitions[:-1, -1], axis=1)
        ends = transitions[:-1, -1]
        rows = [numpy.broadcast_to(ends, (len(emissions), len(ends)))]
        for t in range(emissions.shape[1] - 2, -1, -1):
            inner = back(emissions[:, t + 1] + rows[-1])
            rows.append(numpy.where((lengths - 1 <= t)[:, None], ends, inner))
    backward = numpy.stack(rows[::-1], axis=1)
    return Lattice(emissions, lengths, transitions, forward, backward, log_z)


def score_stretches(
    lattice: Lattice, paths: Sequence[Sequence[int]], stretches: Sequence[tuple[int, int, int]]
) -> Array:
    """log P(the tokens [start, end) have the path's tags | sentence) of each stretch, (stretches,),
    summed over all tag sequences that agree with the path there.

    paths: one of each sentence. stretches: (sentence, start, end) each.
    """
    n_tokens = lattice.emissions.shape[1]
    tags = numpy.array([[*path, *[0] * (n_tokens - len(path))] for path in paths])
    sums = numpy.take_along_axis(lattice.emissions, tags[:, :, None], axis=2)[:, :, 0]
    sums[:, 1:] += lattice.transitions[tags[:, :-1], tags[:, 1:]]
    sums = sums.cumsum(axis=1)
    row, start, end = numpy.array(stretches, dtype="int64").reshape(-1, 3).T
    last = end - 1
    inside = sums[row, last] - sums[row, start]
    before = lattice.forward[row, start, tags[row, start]] - lattice.log_z[row]
    return numpy.minimum(before + inside + lattice.backward[row, last, tags[row, last]], 0.0)


def score_mentions(
    lattice: Lattice, paths: Sequence[Sequence[int]], spans: Sequence[tuple[int, int, int]]
) -> Array:
    """log P(the tokens [start, end) form exactly one mention | sentence) of each mention of the
    paths, (spans,), summed over all tag sequences that agree. spans: (sentence, start, end) each.
    """
    emissions, lengths, transitions, _, backward, _ = lattice
    row, _, end = numpy.array(spans, dtype="int64").reshape(-1, 3).T
    last = numpy.array([paths[i][j - 1] for i, _, j in spans], dtype="int64")
    # What may follow: the end, or any tag but the one that continues the mention.
    after = numpy.minimum(end, emissions.shape[1] - 1)
    exits = transitions[last, :-1] + emissions[row, after] + backward[row, after]
    exits[numpy.arange(len(row)), last + last % 2] = -numpy.inf
    closed = _logsumexp(exits, axis=1)
    closed = numpy.where(end == lengths[row], transitions[last, -1], closed)
    with_any = score_stretches(lattice, paths, spans)
    return numpy.minimum(with_any - backward[row, end - 1, last] + closed, 0.0)


def _find_spans(path: Sequence[int]) -> list[tuple[int, int]]:
    """Start and end token of the mentions in a legal path, which end at O and at each B."""
    stops = [token for token, tag in enumerate([*path, 0]) if tag == 0 or tag % 2]
    return [(i, stop) for i, stop in itertools.pairwise(stops) if path[i]]


def _find_sentences(doc: Doc, path: Sequence[int]) -> list[tuple[int, int]]:
    """First and end token of each sentence: the Doc's own where it has them, otherwise what ends
    in a full stop or the like. One of over MAX_SENTENCE tokens is cut, one of under MIN_SENTENCE
    goes with the next, and none ends inside of a mention of the path."""
    n_tokens = len(doc)
    if n_tokens <= MIN_SENTENCE:
        return [(0, n_tokens)]
    if doc.has_annotation("SENT_START"):
        ends = {sent.end for sent in doc.sents}
    else:
        words = doc.to_array(ORTH).tolist()
        ends = {i for i, word in enumerate(words, start=1) if word in _END_IDS}
    sentences, start = [], 0
    # Most Docs are short, and no place but an end can be one.
    for end in sorted(ends) if n_tokens <= MAX_SENTENCE else range(1, n_tokens):
        length = end - start
        is_long = length >= MAX_SENTENCE or (length >= MIN_SENTENCE and end in ends)
        # Even tags, but O, continue a mention.
        if end < n_tokens and is_long and (path[end] == 0 or path[end] % 2):
            sentences.append((start, end))
            start = end
    return [*sentences, (start, n_tokens)]


def _make_step(steps: Array, near: bool) -> Callable[[Array], Array]:
    """From the scores of one token's tags, (batch, tags), to those of its neighbour's. steps:
    (tags, tags); near: whether probabilities can be added."""
    chances = numpy.exp(steps)

    def step(scores: Array) -> Array:
        if not near:
            return _logsumexp(scores[:, :, None] + steps, axis=1)
        top = scores.max(axis=1, keepdims=True)
        return numpy.log(numpy.exp(scores - top) @ chances) + top

    return step


def _logsumexp(scores: Array, axis: int) -> Array:
    top = scores.max(axis=axis, keepdims=True)
    with numpy.errstate(divide="ignore"):
        return numpy.log(numpy.exp(scores - top).sum(axis=axis)) + top.squeeze(axis)


def _measure_spread(emissions: Array, transitions: Array) -> float:
    """An upper bound on the difference of the scores of two tags of one token that a path can
    reach. Two steps connect any tags: an I tag follows its B tag alone, which follows all."""
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
    """Write doc.ents, each new entity's `span._.mmcot_score`, `doc._.mmcot_confidence` and
    `doc._.mmcot_weakest`.

    overwrite: replace entities that are already set. Otherwise they stay, and a mention that
        overlaps one of them, or a blocked token, is dropped.
    """
    own = doc._
    own.mmcot_confidence, own.mmcot_weakest = mentions.probability, mentions.weakest
    kept: list[Span] = []
    blocked: list[int] = []
    if not overwrite and doc.has_annotation("ENT_IOB"):
        kept = list(doc.ents)
        tags: Any = doc.to_array([ENT_IOB, ENT_TYPE])
        # B without a type is spaCy's mark of a blocked token.
        blocked = numpy.flatnonzero((tags[:, 0] == 3) & (tags[:, 1] == 0)).tolist()
    taken = {i for span in kept for i in range(span.start, span.end)}.union(blocked)
    spans = []
    for mention in mentions:
        if taken.isdisjoint(range(mention.start, mention.end)):
            span = Span(doc, mention.start, mention.end, label=mention.label)
            span._.mmcot_score = mention.score
            spans.append(span)
    doc.set_ents([*kept, *spans], blocked=[doc[i : i + 1] for i in blocked], default="outside")
