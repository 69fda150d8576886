"""`mmcot_rel`: relations between the entities of a Doc, from a distilled pair classifier."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_get_examples
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d

from ..corpus.extensions import get_relations, register_extensions
from ..distillation.soft_labels import Losses, SoftRelations, get_soft_relations, pair_losses
from ..errors import Errors, MMCoTError
from ..messages import check_range
from ..model.bridge import check_states
from ..model.knowledge import get_concluded_relations
from ..model.pair_classifier import set_schema
from ..scheme import read_scheme
from ..types import NO_RELATION, DocPairs, Relation
from . import pairs
from .base import DEFAULT_TOK2VEC, DistilledPipe
from .pairs import UNJUDGED, Target

# No postponed annotations here: spaCy reads those of factories and of initialize at run time.

DEFAULT_MODEL = {"@architectures": "spacy_mmcot.PairClassifier.v1", "tok2vec": DEFAULT_TOK2VEC}


class MMCoTRel(DistilledPipe):
    """Finds relations between the entities that are set on a Doc.

    threshold: a pair gets its likeliest label where the probability that it has any relation
        reaches this.
    max_distance: pairs with more tokens between their mentions have no relation.
    legal: which labels a pair may have by the types of head and tail: a map {head type: {tail
        type: [labels]}}, the path of a label scheme (`scheme.yml`, read at `initialize`), or
        None for all.
    negatives: the most pairs without a relation in a batch, as a multiple of those with one; None
        for all.
    prior_strength: how far training compensates for the labels' frequencies: for the gold loss
        this multiple of the log frequencies is added to the logits (Menon et al., ICLR 2021,
        "Long-tail learning via logit adjustment").
    soft_weight: weight of the loss against soft labels (see `teach`) beside the gold loss, as in
        `mmcot_ner`.
    overwrite: replace relations that are already set; otherwise they stay.
    """

    def __init__(
        self,
        nlp: Language,
        name: str,
        model: Model[list[DocPairs], list[Floats2d]],
        threshold: float,
        max_distance: int,
        legal: str | dict[str, dict[str, list[str]]] | None,
        negatives: float | None,
        prior_strength: float,
        soft_weight: float,
        overwrite: bool,
        scorer: Callable | None,
    ):
        from_scheme = isinstance(legal, str) and legal.endswith((".yml", ".yaml"))
        if isinstance(legal, str) and not from_scheme:
            raise MMCoTError(Errors.E610.format(component=name, legal=legal))
        check_range(name, "threshold", threshold, 0.0, 1.0)
        register_extensions()
        self.vocab = nlp.vocab
        self.model = model
        self.name = name
        self.negatives = negatives
        self.prior_strength = prior_strength
        self.soft_weight = soft_weight
        self.overwrite = overwrite
        self.scorer = scorer
        self.scheme = Path(str(legal)) if from_scheme else None
        self.cfg: dict[str, Any] = {
            "labels": [],
            "types": [],
            "threshold": threshold,
            "max_distance": max_distance,
            "legal": None if isinstance(legal, str) else legal,
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
        """Set the schema, to `labels` (see `label_data`) or else to that of the examples, and build
        the model for it. Raises MMCoTError where there is no label, and for labels and types that
        are no texts."""
        validate_get_examples(get_examples, "MMCoTRel.initialize")
        # A first initialisation keeps labels from add_label; a second one starts from scratch.
        known = () if self.is_initialized else self.labels
        if labels is None:
            labels = self._find_schema(get_examples, known)
        else:
            is_schema = isinstance(labels, dict) and set(labels) == set(self.label_data)
            for name in ("labels", "types"):
                self.check_label_list(labels[name] if is_schema else None, labels)
        self.cfg.update(labels)
        for label in (*self.labels, *self.cfg["types"]):
            self.vocab.strings.add(label)
        if not self.labels:
            raise MMCoTError(Errors.E600.format(component=self.name, what="relations"))
        concluded = (get_concluded_relations(eg.predicted) for eg in get_examples())
        self.cfg["from_conclusions"] = any(relations is not None for relations in concluded)
        set_schema(self.model, [NO_RELATION, *self.labels], self.cfg["types"])
        sample = [eg.predicted for eg in islice(get_examples(), 10)]
        none = numpy.zeros((0, 2), dtype="int64")
        filled = [doc for doc in sample if len(doc)] or sample
        self.model.initialize(X=[DocPairs(doc, [], none) for doc in filled])

    def predict(self, docs: Iterable[Doc]) -> list[list[Relation]]:
        """The relations of each Doc, in the order of their heads; the Docs are not changed."""
        entries = self._find_candidates(docs)
        return self._predict_pairs(entries, entries)

    def predict_on_gold_mentions(self, examples: Sequence[Example]) -> list[list[Relation]]:
        """What `predict` would give if the entities of each reference had been found: read from
        the predicted Doc, head and tail as entities of the reference."""
        entries = self._find_candidates(eg.reference for eg in examples)
        moved = [pairs.move_pairs(e, eg.predicted) for e, eg in zip(entries, examples, strict=True)]
        return self._predict_pairs(entries, moved)

    def predict_soft_relations(self, docs: Sequence[Doc]) -> list[SoftRelations]:
        """Probabilities of each Doc's candidate pairs: rows sum to 1, an illegal label has 0."""
        entries = self._find_candidates(docs)
        rows = torch.from_numpy(self._score_pairs(entries)).split([len(e.pairs) for e in entries])
        return [
            SoftRelations(list(self.labels), pairs.list_mentions(entry), entry.pairs, part.numpy())
            for entry, part in zip(entries, rows, strict=True)
        ]

    def set_annotations(self, docs: Iterable[Doc], scores: list[list[Relation]]) -> None:
        """Write `doc._.mmcot_rel`."""
        for doc, predictions in zip(docs, scores, strict=True):
            pairs.set_predictions(doc, predictions, self.overwrite)

    def begin_update(self, examples: list[Example]) -> tuple[Any, Callable[[Any], Any]]:
        """The scores are the targets, see `build_targets`, and their logits."""
        batch = self.build_targets(examples)
        logits, backprop = self.model.begin_update([target.entry for target in batch])
        return (batch, logits), backprop

    def get_loss(self, examples: Iterable[Example], scores: Any) -> tuple[float, list[Floats2d]]:
        """The weighted loss, and its gradient: (pairs, 1 + labels) a target, as the logits."""
        batch, logits = scores
        arrays = [xp2torch(array, requires_grad=True) for array in logits]
        losses = self.compute_losses(batch, torch.cat(arrays))
        total = losses.gold + self.soft_weight * losses.soft
        gradients: list[Any] = [torch2xp(g) for g in torch.autograd.grad(total, arrays)]
        return float(total.detach()), gradients

    def compute_losses(self, batch: Sequence[Target], logits: torch.Tensor) -> Losses:
        """The losses of the batch's pairs. logits: (pairs, 1 + labels), those of all targets."""
        arrays = (
            torch.from_numpy(numpy.concatenate([getattr(target, name) for target in batch]))
            for name in ("allowed", "gold", "soft")
        )
        allowed, gold, soft = (array.to(logits.device) for array in arrays)
        prior = torch.tensor(self.cfg["log_prior"], device=logits.device) * self.prior_strength
        logits = logits.masked_fill(~allowed, -torch.inf)
        return pair_losses(logits, gold, soft, log_prior=prior)

    def build_targets(self, examples: Iterable[Example]) -> list[Target]:
        """What each example's pairs are to learn, without pairs that teach nothing and without
        negatives above their share (see `negatives`). Pairs are those of the predicted Doc's
        entities, or of the reference's where no component has set entities.

        Raises MMCoTError for gold or soft labels that the component does not have.
        """
        return pairs.sample_negatives([self._build_target(eg) for eg in examples], self.negatives)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Figures of the scorer, end to end from the predicted Docs, and on gold mentions."""
        if self.scorer is None:
            return {}
        examples = list(examples)
        on_gold = [
            [(h.start_char, h.end_char, t.start_char, t.end_char, *rest) for h, t, *rest in found]
            for found in self.predict_on_gold_mentions(examples)
        ]
        return self.scorer(examples, on_gold_mentions=on_gold, **kwargs)

    def _score_pairs(self, entries: Sequence[DocPairs]) -> NDArray[numpy.float32]:
        """(pairs, 1 + labels): the label probabilities of all pairs, one entry's after the other's;
        the first column is no relation."""
        self.check_initialized()
        filled = [entry for entry in entries if len(entry.pairs)]
        if not filled:
            return numpy.zeros((0, 1 + len(self.labels)), dtype="float32")
        check_states(self.model, (entry.doc for entry in filled), self.name)
        logits = xp2torch(self.model.ops.xp.concatenate(self.model.predict(filled))).cpu()
        legal = [pairs.mask_legal(entry, self.cfg["legal"], self.labels) for entry in filled]
        illegal = torch.from_numpy(~numpy.concatenate(legal))
        return torch.softmax(logits.masked_fill(illegal, -torch.inf), dim=-1).numpy()

    def _predict_pairs(
        self, entries: Sequence[DocPairs], read: Sequence[DocPairs]
    ) -> list[list[Relation]]:
        """read: the entries on the Docs whose vectors are read."""
        probabilities = self._score_pairs(read)
        return pairs.pick_relations(entries, probabilities, self.labels, self.cfg["threshold"])

    def _build_target(self, example: Example) -> Target:
        doc, reference = example.predicted, example.reference
        soft = get_soft_relations(reference, self.labels) if self.soft_weight else None
        with_mentions = doc if doc.has_annotation("ENT_IOB") else reference
        (entry,) = self._find_candidates([with_mentions])
        gold = pairs.match_gold(entry, reference, self.labels, self.name)
        if soft is not None and (gold == UNJUDGED).all():
            entry = pairs.place_pairs(reference, soft.mentions, soft.pairs)
            gold = numpy.full(len(entry.pairs), UNJUDGED, dtype="int64")
        allowed = pairs.mask_legal(entry, self.cfg["legal"], self.labels)
        # A predicted mention of another type may rule out what is gold.
        gold[(gold != UNJUDGED) & ~allowed[numpy.arange(len(gold)), gold]] = UNJUDGED
        probabilities = pairs.match_soft(entry, soft, len(self.labels))
        return Target(pairs.move_pairs(entry, doc), allowed, gold, probabilities)

    def _find_candidates(self, docs: Iterable[Doc]) -> list[DocPairs]:
        return [pairs.find_candidates(doc, self.cfg["max_distance"]) for doc in docs]

    def _find_schema(
        self, get_examples: Callable[[], Iterable[Example]], known: Sequence[str]
    ) -> dict[str, Any]:
        """What `label_data` has, from the references. known: labels to have beside theirs."""
        labels, types = set(known), set[str]()
        for example in get_examples():
            types.update(ent.label_ for ent in example.reference.ents)
            labels.update(relation.label for relation in get_relations(example.reference))
            labels.update(c.label for c in get_concluded_relations(example.predicted) or ())
            if soft := get_soft_relations(example.reference):
                labels.update(soft.labels)
                types.update(label for _, _, label in soft.mentions)
        labels.discard(NO_RELATION)
        schema: dict[str, Any] = {"labels": sorted(labels), "types": sorted(types)}
        if self.scheme is not None:
            self.cfg["legal"] = schema["legal"] = read_scheme(self.scheme).legal()
        if self.cfg["legal"] is not None:
            gold_docs = (eg.reference for eg in get_examples())
            pairs.warn_of_illegal(gold_docs, self.cfg["legal"], self.name)
        counts = numpy.ones(1 + len(labels))
        for entry in self._find_candidates(eg.reference for eg in get_examples()):
            gold = pairs.match_gold(entry, entry.doc, schema["labels"], self.name)
            counts += numpy.bincount(gold[gold != UNJUDGED], minlength=len(counts))
        schema["log_prior"] = numpy.log(counts / counts.sum()).tolist()
        return schema


make_rel = Language.factory(
    "mmcot_rel",
    func=MMCoTRel,
    requires=["doc.ents"],
    assigns=["doc._.mmcot_rel"],
    default_config={
        "model": DEFAULT_MODEL,
        "threshold": 0.5,
        "max_distance": 100,
        "legal": None,
        "negatives": 3.0,
        "prior_strength": 0.0,
        "soft_weight": 4.0,
        "overwrite": False,
        "scorer": {"@scorers": "spacy_mmcot.rel_scorer.v1"},
    },
    default_score_weights={"rel_f": 0.5, "rel_e2e_f": 0.5, "rel_p": 0.0, "rel_r": 0.0},
)
