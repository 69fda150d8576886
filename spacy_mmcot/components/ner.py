"""`mmcot_ner`: entities from a distilled tagger."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_get_examples
from thinc.api import Model, torch2xp, xp2torch

from ..corpus.extensions import register_extensions
from ..distillation.soft_labels import Losses, get_soft_labels, get_soft_tags, list_tags, tag_losses
from ..errors import Errors, MMCoTError
from ..messages import check_range
from ..model.bridge import check_states
from ..model.knowledge import get_concluded_entities
from ..model.tagger import TagScores, set_tags
from ..types import REJECTED_KEY
from .base import DEFAULT_TOK2VEC, DistilledPipe
from .decoding import Mentions, compute_marginals, decode_mentions, set_mentions

# No postponed annotations here: spaCy reads those of factories and of initialize at run time.

DEFAULT_MODEL = {
    "@architectures": "spacy_mmcot.Tagger.v1",
    "dropout": 0.2,
    "crf": True,
    "tok2vec": DEFAULT_TOK2VEC,
}


class MMCoTNER(DistilledPipe):
    """Finds entities: those of the best legal BIO sequence of each Doc that are likely enough. Each
    mention and the whole sequence have their exact probability.

    threshold: a mention whose probability is lower is left out: a higher one gives more precision
        and less recall, 0.0 the whole sequence. F1 is best at half of itself (Lipton, Elkan and
        Naryanaswamy, ECML 2014, "Optimal thresholding of classifiers to maximize F1 measure").
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
        threshold: float,
        overwrite: bool,
        soft_weight: float,
        scorer: Callable | None,
    ):
        check_range(name, "threshold", threshold, 0.0, 1.0)
        register_extensions()
        self.vocab = nlp.vocab
        self.model = model
        self.name = name
        self.overwrite = overwrite
        self.soft_weight = soft_weight
        self.scorer = scorer
        self.cfg: dict[str, Any] = {"labels": [], "temperature": 1.0, "threshold": threshold}

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
        conclusions, and build the model for them. Raises MMCoTError where there is no label, and
        for labels that are no texts."""
        validate_get_examples(get_examples, "MMCoTNER.initialize")
        if labels is not None:
            self.check_label_list(labels, labels)
        found, self.cfg["from_conclusions"] = _find_labels(get_examples())
        found = found if labels is None else set(labels)
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
        arrays, transitions = self.score_tags(docs)
        return decode_mentions(docs, arrays, transitions, self.labels, self.cfg["threshold"])

    def score_tags(self, docs: Sequence[Doc]) -> tuple[dict[int, NDArray], NDArray]:
        """Emissions, (tokens, tags), of each Doc that has a token, by its index, and transitions,
        (tags + 1, tags + 1); both divided by the temperature."""
        filled = {i: doc for i, doc in enumerate(docs) if len(doc)}
        if not filled:
            return {}, numpy.zeros((0, 0))
        self.check_initialized()
        check_states(self.model, filled.values(), self.name)
        scores = self.model.predict(list(filled.values()))
        temperature, ops = self.cfg["temperature"], self.model.ops
        arrays = [ops.to_numpy(array) / temperature for array in scores.emissions]
        transitions = ops.to_numpy(scores.transitions) / temperature
        return dict(zip(filled, arrays, strict=True)), transitions

    def predict_marginals(self, docs: Sequence[Doc]) -> list[NDArray[numpy.float32]]:
        """P(tag | text) of each token: one (tokens, tags) array a Doc, in the order of `tags`."""
        empty = numpy.zeros((0, len(self.tags)), dtype="float32")
        found = compute_marginals(*self.score_tags(docs))
        return [found[i].astype("float32") if i in found else empty for i in range(len(docs))]

    def set_annotations(self, docs: Iterable[Doc], scores: list[Mentions]) -> None:
        """Write doc.ents, each new entity's `span._.mmcot_score`, and `doc._.mmcot_confidence`."""
        for doc, mentions in zip(docs, scores, strict=True):
            set_mentions(doc, mentions, self.overwrite)

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
        inputs = [*emissions, transitions]
        each = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
        *rows, steps = (cast(Any, torch2xp(gradient)) for gradient in each)
        return float(total.detach()), TagScores(rows, steps)

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
        rejected: list[tuple[int, int, int, int]] = []
        soft = numpy.zeros(shape, dtype="float32")
        for row, example in enumerate(examples):
            for token, tag in self._gold_tags(example):
                allowed[row, token] = False
                allowed[row, token, tag] = True
            rejected += [(row, *span) for span in self._find_rejected(example)]
            probabilities = get_soft_labels(example.reference, tags) if self.soft_weight else None
            if probabilities is not None:
                n_tokens = len(example.predicted)
                if len(probabilities) != n_tokens:
                    raise MMCoTError(Errors.E501.format(rows=len(probabilities), tokens=n_tokens))
                soft[row, :n_tokens] = probabilities
        device = transitions.device
        return tag_losses(
            torch.nn.utils.rnn.pad_sequence(emissions, batch_first=True),
            lengths.to(device),
            transitions,
            torch.from_numpy(allowed).to(device),
            torch.from_numpy(soft).to(device),
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
                known = list(self.labels)
                raise MMCoTError(
                    Errors.E603.format(component=self.name, label=tag[2:], labels=known)
                )
            yield token, index[tag]

    def _find_rejected(self, example: Example) -> Iterator[tuple[int, int, int]]:
        """Start, end and index of the B tag of each span that people rejected, as far as it is a
        span of the predicted Doc's tokens and has a label of the component."""
        for rejected in example.reference.spans.get(REJECTED_KEY, ()):
            span = example.predicted.char_span(rejected.start_char, rejected.end_char)
            if span is not None and rejected.label_ in self.labels:
                yield span.start, span.end, self.tags.index(f"B-{rejected.label_}")


make_ner = Language.factory(
    "mmcot_ner",
    func=MMCoTNER,
    assigns=[
        *("doc.ents", "token.ent_iob", "token.ent_type"),
        *("span._.mmcot_score", "doc._.mmcot_confidence", "doc._.mmcot_weakest"),
    ],
    default_config={
        "model": DEFAULT_MODEL,
        "threshold": 0.4,
        "overwrite": False,
        "soft_weight": 4.0,
        "scorer": {"@scorers": "spacy_mmcot.ner_scorer.v1"},
    },
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)


def _find_labels(examples: Iterable[Example]) -> tuple[set[str], bool]:
    """The labels of entities, soft labels and conclusions, and whether there are conclusions, which
    a teacher alone reads: few labelled Docs need not show all labels."""
    labels, from_conclusions = set[str](), False
    for example in examples:
        labels.update(ent.label_ for ent in example.reference.ents)
        labels.update(tag[2:] for tag in get_soft_tags(example.reference) if tag != "O")
        concluded = get_concluded_entities(example.predicted)
        from_conclusions |= concluded is not None
        labels.update(c.label for c in concluded or ())
    return labels, from_conclusions
