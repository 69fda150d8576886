"""`mmcot_rel`: relations between the entities of a Doc, from a distilled pair classifier."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_get_examples
from spacy.util import logger
from spacy.vocab import Vocab
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d

from ..corpus.extensions import get_relations, register
from ..distillation.losses import Losses, pair_losses
from ..distillation.soft_labels import SoftRelations, get_soft_relations
from ..errors import Errors, MMCoTError, Warnings
from ..model.bridge import check_states, split_by_counts
from ..model.pair_classifier import DocPairs, set_schema
from ..types import NO_RELATION, Relation
from .pairs import (
    Legal,
    Target,
    candidates,
    characters,
    gold_kinds,
    gold_labels,
    learn_legal,
    legal_labels,
    moved,
    places,
    soft_rows,
    taught_pairs,
    without_surplus_negatives,
)
from .shared import DEFAULT_TOK2VEC, DistilledPipe

# No postponed annotations here: spaCy reads those of factories and of initialize at run time.


DEFAULT_MODEL = {
    "@architectures": "spacy_mmcot.PairClassifier.v1",
    "tok2vec": DEFAULT_TOK2VEC,
}
_MOST_NAMED = 5  # kinds of relations in a warning


class PairPrediction(NamedTuple):
    """A pair of mentions of one Doc with its likeliest label and that label's probability: head
    and tail are (start, end) token offsets, end exclusive."""

    head: tuple[int, int]
    tail: tuple[int, int]
    label: str
    score: float


@Language.factory(
    "mmcot_rel",
    requires=["doc.ents"],
    assigns=["doc._.mmcot_rel"],
    default_config={
        "model": DEFAULT_MODEL,
        "threshold": 0.5,
        "max_distance": 100,
        "max_pairs": 100_000,
        "legal": None,
        "negatives": 3.0,
        "prior_strength": 0.0,
        "soft_weight": 4.0,
        "overwrite": False,
        "scorer": {"@scorers": "spacy_mmcot.rel_scorer.v1"},
    },
    default_score_weights={"rel_f": 0.5, "rel_e2e_f": 0.5, "rel_p": 0.0, "rel_r": 0.0},
)
def make_rel(
    nlp: Language,
    name: str,
    model: Model[list[DocPairs], list[Floats2d]],
    threshold: float,
    max_distance: int,
    max_pairs: int,
    legal: str | dict[str, dict[str, list[str]]] | None,
    negatives: float | None,
    prior_strength: float,
    soft_weight: float,
    overwrite: bool,
    scorer: Callable | None,
) -> "MMCoTRel":
    return MMCoTRel(
        nlp.vocab,
        model,
        name,
        threshold=threshold,
        max_distance=max_distance,
        max_pairs=max_pairs,
        legal=legal,
        negatives=negatives,
        prior_strength=prior_strength,
        soft_weight=soft_weight,
        overwrite=overwrite,
        scorer=scorer,
    )


class MMCoTRel(DistilledPipe):
    """Finds relations between the entities that earlier components have set.

    threshold: a pair is given its likeliest label where the probability of any relation at all
        reaches this.
    max_distance: pairs with more tokens between their mentions have no relation.
    max_pairs: the most pairs of one Doc; of more, the nearest count, and a warning says how many
        were left out.
    legal: which labels a pair may have by the types of head and tail: a map {head type: {tail
        type: [labels]}}, "learned" for what the gold relations of the training data show, or None
        for all.
    negatives: the most pairs without a relation in a batch, as a multiple of those with one; None
        for all.
    prior_strength: how much the labels' frequencies in training are made up for: logits are
        trained with this multiple of the log frequencies added, which are left away later (Menon
        et al., ICLR 2021, "Long-tail learning via logit adjustment").
    soft_weight: weight of the loss against a teacher's distributions (see `teach`) beside the gold
        loss, as in `mmcot_ner`.
    overwrite: replace relations set before; without it they stay.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model[list[DocPairs], list[Floats2d]],
        name: str = "mmcot_rel",
        *,
        threshold: float = 0.5,
        max_distance: int = 100,
        max_pairs: int = 100_000,
        legal: str | Legal | None = None,
        negatives: float | None = 3.0,
        prior_strength: float = 0.0,
        soft_weight: float = 4.0,
        overwrite: bool = False,
        scorer: Callable | None = None,
    ):
        if isinstance(legal, str) and legal != "learned":
            raise MMCoTError(Errors.E610.format(component=name, legal=legal))
        register()
        self.vocab = vocab
        self.model = model
        self.name = name
        self.negatives = negatives
        self.prior_strength = prior_strength
        self.soft_weight = soft_weight
        self.overwrite = overwrite
        self.scorer = scorer
        self.learns_legal = legal == "learned"
        self.cfg: dict[str, Any] = {
            "labels": [],
            "types": [],
            "threshold": threshold,
            "max_distance": max_distance,
            "max_pairs": max_pairs,
            "legal": None if self.learns_legal else legal,
            "log_prior": [],
        }

    @property
    def label_data(self) -> dict[str, Any]:
        """What `spacy init labels` saves and `initialize` takes."""
        return {name: self.cfg[name] for name in ("labels", "types", "legal", "log_prior")}

    @property
    def is_initialized(self) -> bool:
        return self.model.has_dim("nI") is True

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: dict[str, Any] | None = None,
    ) -> None:
        """Learn the schema, from `labels` (see `label_data`) or else from the examples, and build
        the model for it."""
        validate_get_examples(get_examples, "MMCoTRel.initialize")
        # A second initialisation starts from scratch; a first one keeps what add_label was told.
        known = () if self.is_initialized else self.labels
        if labels is None:
            labels = self._schema(get_examples, known)
        elif not isinstance(labels, dict) or set(labels) != set(self.label_data):
            raise MMCoTError(Errors.E613.format(component=self.name, received=labels))
        self.cfg.update(labels)
        for label in (*self.labels, *self.cfg["types"]):
            self.vocab.strings.add(label)
        if not self.labels:
            raise MMCoTError(Errors.E611.format(component=self.name))
        set_schema(self.model, [NO_RELATION, *self.labels], self.cfg["types"])
        sample = [eg.predicted for eg in islice(get_examples(), 10)]
        none = numpy.zeros((0, 2), dtype="int64")
        filled = [doc for doc in sample if len(doc)] or sample
        self.model.initialize(X=[DocPairs(doc, [], none) for doc in filled])

    def predict(self, docs: Iterable[Doc]) -> list[list[PairPrediction]]:
        """The relations of each Doc, in the order of their heads; the Docs are not touched."""
        entries = []
        for doc in docs:
            entry, surplus = candidates(doc, *self._limits)
            if surplus:
                logger.warning(
                    "%s: %d of %d pairs of mentions in one doc were left out (max_pairs = %d): %r",
                    self.name,
                    surplus,
                    surplus + len(entry.pairs),
                    self.cfg["max_pairs"],
                    doc.text[:60],
                )
            entries.append(entry)
        return self._decide(entries, self._probabilities(entries))

    def predict_on_gold_mentions(self, examples: Sequence[Example]) -> list[list[PairPrediction]]:
        """What `predict` would say if the entities of each reference had been found: read from
        the predicted Doc, head and tail as tokens of the reference."""
        entries = [candidates(eg.reference, *self._limits)[0] for eg in examples]
        on_predicted = [moved(e, eg.predicted) for e, eg in zip(entries, examples, strict=True)]
        return self._decide(entries, self._probabilities(on_predicted))

    def distributions(self, entries: Sequence[DocPairs]) -> list[NDArray[numpy.float32]]:
        """P(label | pair), one (pairs, 1 + labels) array an entry; the first is no relation, and an
        illegal label has 0."""
        return split_by_counts(self._probabilities(entries), [len(e.pairs) for e in entries])

    def _probabilities(self, entries: Sequence[DocPairs]) -> NDArray[numpy.float32]:
        """The rows of `distributions`, one entry's after the other's."""
        self.check_initialized()
        filled = [entry for entry in entries if len(entry.pairs)]
        if not filled:
            return numpy.zeros((0, 1 + len(self.labels)), dtype="float32")
        check_states(self.model, (entry.doc for entry in filled), self.name)
        logits = xp2torch(self.model.ops.xp.concatenate(self.model.predict(filled))).cpu()
        legal = [legal_labels(entry, self.cfg["legal"], self.labels) for entry in filled]
        illegal = torch.from_numpy(~numpy.concatenate(legal))
        probabilities: NDArray[numpy.float32]
        probabilities = torch.softmax(logits.masked_fill(illegal, -torch.inf), dim=-1).numpy()
        return probabilities

    def soft_relations(self, docs: Sequence[Doc]) -> list[SoftRelations]:
        """What `teach` stores: the distributions of each Doc's pairs."""
        entries = [candidates(doc, *self._limits)[0] for doc in docs]
        return [
            SoftRelations(
                list(self.labels),
                [(*place, m[2]) for place, m in zip(places(e), e.mentions, strict=True)],
                e.pairs,
                probabilities,
            )
            for e, probabilities in zip(entries, self.distributions(entries), strict=True)
        ]

    def set_annotations(self, docs: Iterable[Doc], scores: list[list[PairPrediction]]) -> None:
        """Write `doc._.mmcot_rel`."""
        for doc, predictions in zip(docs, scores, strict=True):
            kept = [] if self.overwrite else list(get_relations(doc))
            taken = {(r.head.start, r.head.end, r.tail.start, r.tail.end) for r in kept}
            spans = {(ent.start, ent.end): ent for ent in doc.ents}
            new = [
                Relation(spans[p.head], spans[p.tail], p.label, p.score)
                for p in predictions
                if (*p.head, *p.tail) not in taken
            ]
            doc._.mmcot_rel = [*kept, *new]

    def begin(self, examples: list[Example]) -> tuple[Any, Callable[[Any], Any]]:
        """Pairs are those of the predicted Docs' entities, or of the reference's where nothing has
        set entities."""
        batch = self.targets(examples)
        logits, backprop = self.model.begin_update([target.entry for target in batch])
        return (batch, logits), backprop

    def get_loss(self, examples: Iterable[Example], scores: Any) -> tuple[float, list[Floats2d]]:
        """The joint loss of (targets, logits) and its gradient in the shape of the logits."""
        batch, logits = scores
        arrays = [xp2torch(array, requires_grad=True) for array in logits]
        flat = torch.cat(arrays)
        losses = self.batch_losses(batch, flat)
        total = losses.gold + self.soft_weight * losses.soft
        gradients: list[Any] = [torch2xp(g) for g in torch.autograd.grad(total, arrays)]
        return float(total.detach()), gradients

    def batch_losses(self, batch: Sequence[Target], logits: torch.Tensor) -> Losses:
        """The losses of the batch's pairs; logits: (pairs, 1 + labels), one target's after the
        other's."""
        arrays = (
            numpy.concatenate([getattr(target, name) for target in batch])
            for name in ("allowed", "gold", "soft", "taught")
        )
        allowed, gold, soft, taught = (torch.from_numpy(a).to(logits.device) for a in arrays)
        prior = torch.tensor(self.cfg["log_prior"], device=logits.device) * self.prior_strength
        logits = logits.masked_fill(~allowed, -torch.inf)
        return pair_losses(logits, gold, soft, taught, log_prior=prior)

    def targets(self, examples: Iterable[Example]) -> list[Target]:
        """What each example is to teach about its pairs; those that teach nothing are left out,
        and of pairs without a relation all that are more than their share."""
        batch = [self._target(example) for example in examples]
        return without_surplus_negatives(batch, self.negatives)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """The scorer's figures end to end, from the predicted Docs as they are, and on gold
        mentions."""
        if self.scorer is None:
            return {}
        examples = list(examples)
        predictions = self.predict_on_gold_mentions(examples)
        on_gold = [
            [
                (*characters(eg.reference, *p.head), *characters(eg.reference, *p.tail), *p[2:])
                for p in found
            ]
            for eg, found in zip(examples, predictions, strict=True)
        ]
        return self.scorer(examples, on_gold_mentions=on_gold, **kwargs)

    def _decide(
        self, entries: Sequence[DocPairs], probabilities: NDArray[numpy.float32]
    ) -> list[list[PairPrediction]]:
        result: list[list[PairPrediction]] = [[] for _ in entries]
        if not entries:
            return result
        # 1 - P(None) by its summands, which keep their precision where it is near 0.
        related = probabilities[:, 1:].sum(axis=1)
        # Where every label is illegal not even a threshold of 0 is reached.
        related = numpy.flatnonzero((related >= self.cfg["threshold"]) & (related > 0))
        best = probabilities[related, 1:].argmax(axis=1)
        scores = probabilities[related, 1 + best]
        counts = [len(entry.pairs) for entry in entries]
        owners = numpy.repeat(numpy.arange(len(entries)), counts)[related]
        pairs = numpy.concatenate([entry.pairs for entry in entries])[related]
        for pair, label, score, i in zip(pairs, best, scores, owners, strict=True):
            head, tail = (entries[i].mentions[m] for m in pair)
            found = PairPrediction(head[:2], tail[:2], self.labels[label], float(score))
            result[i].append(found)
        return [sorted(found, key=lambda p: (p.head, p.tail)) for found in result]

    def _target(self, example: Example) -> Target:
        doc, reference = example.predicted, example.reference
        taught = get_soft_relations(reference, self.labels) if self.soft_weight else None
        if doc.has_annotation("ENT_IOB"):
            entry = candidates(doc, *self._limits)[0]
        else:
            entry = candidates(reference, *self._limits)[0]
        gold = gold_labels(entry, reference, self.labels, self.name)
        if taught is not None and not (gold >= 0).any():
            entry = taught_pairs(reference, taught)
            gold = numpy.full(len(entry.pairs), -1, dtype="int64")
        allowed = legal_labels(entry, self.cfg["legal"], self.labels)
        # A predicted mention of another type may rule out what is gold.
        gold[(gold >= 0) & ~allowed[numpy.arange(len(gold)), gold]] = -1
        soft, is_taught = soft_rows(entry, taught, len(self.labels))
        return Target(moved(entry, doc), allowed, gold, soft, is_taught)

    @property
    def _limits(self) -> tuple[int, int]:
        return self.cfg["max_distance"], self.cfg["max_pairs"]

    def _schema(
        self, get_examples: Callable[[], Iterable[Example]], known: Sequence[str]
    ) -> dict[str, Any]:
        labels, types = set(known), set[str]()
        for example in get_examples():
            types.update(ent.label_ for ent in example.reference.ents)
            labels.update(relation.label for relation in get_relations(example.reference))
            soft = get_soft_relations(example.reference)
            if soft is not None:
                labels.update(soft.labels)
                types.update(label for _, _, label in soft.mentions)
        schema: dict[str, Any] = {"labels": sorted(labels), "types": sorted(types)}
        if self.learns_legal:
            schema["legal"] = learn_legal(gold_kinds(get_examples()))
        elif self.cfg["legal"] is not None:
            self._warn_of_illegal(gold_kinds(get_examples()))
        counts = numpy.ones(1 + len(labels))
        for example in get_examples():
            entry = candidates(example.reference, *self._limits)[0]
            gold = gold_labels(entry, example.reference, schema["labels"], self.name)
            counts += numpy.bincount(gold[gold >= 0], minlength=len(counts))
        schema["log_prior"] = numpy.log(counts / counts.sum()).tolist()
        return schema

    def _warn_of_illegal(self, kinds: Counter[tuple[str, str, str]]) -> None:
        legal: Legal = self.cfg["legal"]
        illegal = {k: n for k, n in kinds.items() if k[2] not in legal.get(k[0], {}).get(k[1], ())}
        if not illegal:
            return
        named = sorted(illegal, key=lambda kind: -illegal[kind])[:_MOST_NAMED]
        places = ", ".join(f"{label} from {head} to {tail}" for head, tail, label in named)
        if len(illegal) > len(named):
            places += f" and {len(illegal) - len(named)} more"
        count, total = sum(illegal.values()), kinds.total()
        message = Warnings.W600.format(component=self.name, count=count, total=total, places=places)
        warnings.warn(message, stacklevel=2)
