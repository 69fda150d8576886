"""`mmcot_ner`: entities from a distilled tagger."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from spacy.attrs import ENT_IOB, ENT_TYPE, ORTH
from spacy.language import Language
from spacy.strings import get_string_id
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_get_examples
from thinc.api import Model, torch2xp, xp2torch

from ..corpus.extensions import register_extensions
from ..distillation.soft_labels import Losses, get_soft_labels, get_soft_tags, list_tags, tag_losses
from ..errors import Errors, MMCoTError
from ..model.bridge import check_states
from ..model.crf import (
    compute_lattice,
    compute_log_marginals,
    find_best_paths,
    score_paths,
    score_spans,
    score_stretches,
)
from ..model.knowledge import get_concluded_entities
from ..model.tagger import TagScores, set_tags
from ..model.wordpieces import group_by_length
from ..types import REJECTED_KEY
from .base import DEFAULT_TOK2VEC, DistilledPipe

# No postponed annotations here: spaCy reads those of factories and of initialize at run time.

DEFAULT_MODEL = {
    "@architectures": "spacy_mmcot.Tagger.v1",
    "dropout": 0.2,
    "crf": True,
    "tok2vec": DEFAULT_TOK2VEC,
}

# Tokens of a sentence whose certainty is looked at by itself.
MIN_SENTENCE, MAX_SENTENCE = 5, 64
_END_IDS = [get_string_id(sign) for sign in (*".!?…。！？", "...", "\n", "\n\n")]

# Tokens of a padded batch that is decoded at once: a long Doc is not padded against short ones.
MAX_PADDED = 2**16


class Mention(NamedTuple):
    """A predicted mention: token offsets, end exclusive, and its probability."""

    start: int
    end: int
    label: str
    score: float


class Mentions(list[Mention]):
    """The mentions of one Doc, in text order, and the probability of the tag sequence that they
    come from: that all are correct and none is missing. weakest: that of the sentence where it is
    lowest."""

    def __init__(self, probability: float = 1.0, weakest: float = 1.0):
        super().__init__()
        self.probability, self.weakest = probability, weakest


class MMCoTNER(DistilledPipe):
    """Finds entities: the best legal BIO sequence of each Doc. Each mention and the whole sequence
    have their exact probability.

    overwrite: replace entities that are already set. Otherwise they stay, and a prediction that
        overlaps one of them is dropped.
    soft_weight: weight of the loss against soft labels (see `teach`) beside the gold loss. Docs
        without soft labels learn from gold alone, docs without annotation from soft labels alone.
        The gold loss is a mean over labelled tokens only, so where most posts are unlabelled a
        weight of 1 lets a few gold posts outweigh the teacher (research/README.md).
    """

    def __init__(
        self,
        nlp: Language,
        name: str,
        model: Model[list[Doc], TagScores],
        overwrite: bool,
        soft_weight: float,
        scorer: Callable | None,
    ):
        register_extensions()
        self.vocab = nlp.vocab
        self.model = model
        self.name = name
        self.overwrite = overwrite
        self.soft_weight = soft_weight
        self.scorer = scorer
        self.cfg: dict[str, Any] = {"labels": [], "temperature": 1.0}

    @property
    def label_data(self) -> tuple[str, ...]:
        """What `spacy init labels` saves and `initialize` takes."""
        return self.labels

    @property
    def tags(self) -> list[str]:
        """The BIO tags in the order of the model's scores."""
        return list_tags(self.labels)

    @property
    def is_initialized(self) -> bool:
        return self.model.get_ref("head").has_dim("nO") is True

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        """Set the labels, to `labels` or else to those of the examples' entities, soft labels and
        conclusions, and build the model for them. Raises MMCoTError where there is no label."""
        validate_get_examples(get_examples, "MMCoTNER.initialize")
        found = labels if labels is not None else _find_labels(get_examples())
        # A first initialisation keeps labels from add_label; a second one starts from scratch.
        known = () if self.is_initialized else self.labels
        self.cfg.update({"labels": sorted({*known, *found}), "temperature": 1.0})
        for label in self.labels:
            self.vocab.strings.add(label)
        if not self.labels:
            raise MMCoTError(Errors.E600.format(component=self.name, what="entities"))
        set_tags(self.model, self.tags)
        sample = [eg.predicted for eg in islice(get_examples(), 10)]
        self.model.initialize(X=[doc for doc in sample if len(doc)] or sample)

    def predict(self, docs: Iterable[Doc]) -> list[Mentions]:
        """The mentions of each Doc, in text order; the Docs are not changed."""
        docs = list(docs)
        mentions = [Mentions() for _ in docs]
        arrays, transitions = self._score_tags(docs)
        for indexes, emissions, lengths in _pad_batches(arrays):
            paths = find_best_paths(emissions, lengths, transitions)
            scores = compute_lattice(emissions, lengths, transitions)
            chosen = score_paths(emissions, lengths, transitions, paths)
            # In double precision: that of a long Doc is small.
            probabilities = (chosen - scores.log_z).double().clamp(max=0.0).exp().tolist()
            spans = [
                (row, start, end, 1 + 2 * label)
                for row, path in enumerate(paths)
                for start, end, label in _find_spans(path)
            ]
            chances = score_spans(scores, emissions, lengths, transitions, spans).exp()
            for i, probability in zip(indexes, probabilities, strict=True):
                mentions[i].probability = mentions[i].weakest = probability
            stretches = [
                (row, *stretch)
                for row, path in enumerate(paths)
                for stretch in _find_sentences(docs[indexes[row]], path)
            ]
            if len(stretches) > len(paths):
                field = emissions, lengths, transitions
                logs = score_stretches(scores, *field, paths, stretches).exp().tolist()
                for i in indexes:
                    mentions[i].weakest = 1.0
                for (row, *_), chance in zip(stretches, logs, strict=True):
                    found = mentions[indexes[row]]
                    found.weakest = min(found.weakest, chance)
            for (row, start, end, begin), score in zip(spans, chances.tolist(), strict=True):
                i = indexes[row]
                trimmed = _trim(docs[i], start, end)
                if trimmed is not None:
                    mentions[i].append(Mention(*trimmed, self.labels[(begin - 1) // 2], score))
        return mentions

    def predict_marginals(self, docs: Sequence[Doc]) -> list[NDArray[numpy.float32]]:
        """P(tag | text) of each token: one (tokens, tags) array a Doc, in the order of `tags`."""
        marginals = [numpy.zeros((0, len(self.tags)), dtype="float32")] * len(docs)
        arrays, transitions = self._score_tags(docs)
        for indexes, emissions, lengths in _pad_batches(arrays):
            scores = compute_log_marginals(compute_lattice(emissions, lengths, transitions))
            for i, array in zip(indexes, scores.exp().cpu().numpy(), strict=True):
                marginals[i] = array[: len(docs[i])]
        return marginals

    def set_annotations(self, docs: Iterable[Doc], scores: list[Mentions]) -> None:
        """Write doc.ents, each new entity's `span._.mmcot_score`, and `doc._.mmcot_confidence`."""
        for doc, mentions in zip(docs, scores, strict=True):
            doc._.mmcot_confidence = mentions.probability
            doc._.mmcot_weakest = mentions.weakest
            is_fresh = self.overwrite or not doc.has_annotation("ENT_IOB")
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

    def begin_update(self, examples: list[Example]) -> tuple[TagScores, Callable[[TagScores], Any]]:
        return self.model.begin_update([eg.predicted for eg in examples])

    def get_loss(self, examples: Iterable[Example], scores: TagScores) -> tuple[float, TagScores]:
        """The weighted loss of a batch, and its gradient in the shape of the scores."""
        emissions = [xp2torch(array, requires_grad=True) for array in scores.emissions]
        transitions = xp2torch(scores.transitions, requires_grad=True)
        filled = [eg for eg in examples if len(eg.predicted)]
        arrays = [array for array in emissions if len(array)]
        losses = self.compute_losses(filled, arrays, transitions)
        total = losses.gold + self.soft_weight * losses.soft
        total.backward()
        gradient = TagScores([_gradient(array) for array in emissions], _gradient(transitions))
        return float(total.detach()), gradient

    def compute_losses(
        self, examples: list[Example], emissions: list[torch.Tensor], transitions: torch.Tensor
    ) -> Losses:
        """The losses of examples that have tokens.

        emissions: (tokens, tags) of each; transitions: (tags + 1, tags + 1).

        Raises MMCoTError for gold or soft labels that the component does not have, and for soft
        labels of another tokenization.
        """
        tags = self.tags
        lengths = torch.tensor([len(array) for array in emissions])
        shape = (len(emissions), int(lengths.max()), len(tags))
        allowed = numpy.ones(shape, dtype=bool)
        has_gold = numpy.zeros(shape[:2], dtype=bool)
        rejected: list[tuple[int, int, int, int]] = []
        soft = numpy.zeros(shape, dtype="float32")
        has_soft = numpy.zeros(shape[:2], dtype=bool)
        for row, example in enumerate(examples):
            for token, tag in self._gold_tags(example):
                has_gold[row, token] = True
                allowed[row, token] = False
                allowed[row, token, tag] = True
            rejected += [(row, *span) for span in self._find_rejected(example)]
            probabilities = get_soft_labels(example.reference, tags) if self.soft_weight else None
            if probabilities is not None:
                n_tokens = len(example.predicted)
                if len(probabilities) != n_tokens:
                    raise MMCoTError(Errors.E501.format(rows=len(probabilities), tokens=n_tokens))
                soft[row, :n_tokens] = probabilities
                has_soft[row, :n_tokens] = True
        device = transitions.device
        return tag_losses(
            torch.nn.utils.rnn.pad_sequence(emissions, batch_first=True),
            lengths.to(device),
            transitions,
            *(torch.from_numpy(array).to(device) for array in (allowed, has_gold, soft, has_soft)),
            rejected=rejected,
            crf=self.model.get_ref("head").attrs["learn_transitions"],
        )

    def _gold_tags(self, example: Example) -> Iterator[tuple[int, int]]:
        """(token, index of its BIO tag) of each token of the predicted Doc that is annotated."""
        index = {tag: i for i, tag in enumerate(self.tags)}
        for token, biluo in enumerate(example.get_aligned_ner()):
            if biluo in (None, "-"):
                continue
            tag = {"U": "B", "L": "I"}.get(biluo[0], biluo[0]) + biluo[1:]
            if tag not in index:
                raise MMCoTError(
                    Errors.E603.format(component=self.name, label=tag[2:], labels=list(self.labels))
                )
            yield token, index[tag]

    def _find_rejected(self, example: Example) -> list[tuple[int, int, int]]:
        """Start, end and index of the B tag of each span that people rejected, as far as it is a
        span of the predicted Doc's tokens and has a label of the component."""
        index = {tag: i for i, tag in enumerate(self.tags)}
        spans = [
            (example.predicted.char_span(span.start_char, span.end_char), f"B-{span.label_}")
            for span in example.reference.spans.get(REJECTED_KEY, ())
        ]
        return [(s.start, s.end, index[tag]) for s, tag in spans if s is not None and tag in index]

    def _score_tags(self, docs: Sequence[Doc]) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """Emissions, (tokens, tags), of each Doc that has a token, by its index, and transitions,
        (tags + 1, tags + 1); both divided by the temperature."""
        filled = {i: doc for i, doc in enumerate(docs) if len(doc)}
        if not filled:
            return {}, torch.empty(0)
        self.check_initialized()
        check_states(self.model, filled.values(), self.name)
        scores = self.model.predict(list(filled.values()))
        temperature = self.cfg["temperature"]
        flat = xp2torch(self.model.ops.xp.concatenate(scores.emissions)) / temperature
        emissions = flat.split(list(map(len, filled.values())))
        return dict(zip(filled, emissions, strict=True)), xp2torch(scores.transitions) / temperature


make_ner = Language.factory(
    "mmcot_ner",
    func=MMCoTNER,
    assigns=[
        *("doc.ents", "token.ent_iob", "token.ent_type"),
        *("span._.mmcot_score", "doc._.mmcot_confidence", "doc._.mmcot_weakest"),
    ],
    default_config={
        "model": DEFAULT_MODEL,
        "overwrite": False,
        "soft_weight": 4.0,
        "scorer": {"@scorers": "spacy_mmcot.ner_scorer.v1"},
    },
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)


def _find_labels(examples: Iterable[Example]) -> set[str]:
    examples = list(examples)
    docs = [example.reference for example in examples]
    tags = {tag for doc in docs for tag in get_soft_tags(doc)}
    # Those that a teacher reads: few labelled Docs need not show all labels.
    concluded = (c for eg in examples for c in get_concluded_entities(eg.predicted) or ())
    labels = {ent.label_ for doc in docs for ent in doc.ents} | {c.label for c in concluded}
    return labels | {tag[2:] for tag in tags - {"O"}}


def _find_spans(path: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, end, label index) of the mentions in a legal path. Tag 0 is O, then each label's B
    and I."""
    starts = [token for token, tag in enumerate(path) if tag % 2]
    # Where a mention may end: at O and at each B.
    stops = [token for token, tag in enumerate([*path, 0]) if tag == 0 or tag % 2]
    return [(i, stops[bisect_right(stops, i)], (path[i] - 1) // 2) for i in starts]


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
        signs = numpy.isin(doc.to_array(ORTH), _END_IDS)
        ends = set((1 + numpy.flatnonzero(signs)).tolist())
    sentences, start = [], 0
    for end in range(1, n_tokens + 1):
        length = end - start
        is_long = length >= MAX_SENTENCE or (length >= MIN_SENTENCE and end in ends)
        # Even tags, but O, continue a mention.
        if end == n_tokens or (is_long and (path[end] == 0 or path[end] % 2)):
            sentences.append((start, end))
            start = end
    return sentences


def _pad_batches(
    emissions: dict[int, torch.Tensor],
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Batches of Docs of similar length: their indexes, emissions padded to (docs, tokens, tags),
    and lengths (docs,). emissions: (tokens, tags) of each Doc by its index."""
    filled = list(emissions)
    for group in group_by_length(list(map(len, emissions.values())), MAX_PADDED):
        indexes = [filled[row] for row in group]
        arrays = [emissions[i] for i in indexes]
        padded = torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True)
        lengths = torch.tensor([len(array) for array in arrays], device=padded.device)
        yield indexes, padded, lengths


def _find_blocked(doc: Doc) -> list[int]:
    """The tokens that are blocked from being in an entity (see `Doc.set_ents`)."""
    tags: Any = doc.to_array([ENT_IOB, ENT_TYPE])
    return numpy.flatnonzero((tags[:, 0] == 3) & (tags[:, 1] == 0)).tolist()


def _trim(doc: Doc, start: int, end: int) -> tuple[int, int] | None:
    """The span without white space at its ends, which spaCy does not allow there; None where it
    is nothing else."""
    while start < end and doc[start].is_space:
        start += 1
    while start < end and doc[end - 1].is_space:
        end -= 1
    return (start, end) if start < end else None


def _gradient(tensor: torch.Tensor) -> Any:
    """The tensor's gradient in its shape, 0 where it has none."""
    return torch2xp(tensor.grad if tensor.grad is not None else torch.zeros_like(tensor))
