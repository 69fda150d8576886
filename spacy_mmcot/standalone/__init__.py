"""A trained student without torch and transformers: what a standalone wheel carries.

`spacy-mmcot export --standalone` copies this package and what it imports into the wheel, next to
the pipeline's data. It needs spaCy, numpy, tokenizers and onnxruntime. The components have the
names and the behaviour of those that they were made of, and cannot be trained.
"""

import io
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, List, Self, cast  # noqa: UP035

import numpy
import srsly
from numpy.typing import NDArray
from spacy.language import Language
from spacy.pipeline.pipe import Pipe
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import minibatch, registry
from thinc.api import Model, NumpyOps, Ops
from thinc.types import Floats2d, Ragged

from ..components.decoding import decode_mentions, set_mentions
from ..components.pairs import find_candidates, mask_legal, pick_relations, set_predictions
from ..corpus.extensions import register_extensions
from ..errors import Errors, MMCoTError
from ..model.wordpieces import make_embed
from ..types import DocPairs
from .encoder import NumpyEncoder, PieceTable, average_spans

# No postponed annotations here: spaCy reads those of architectures at run time.

# Pairs that are scored at once: bounds the memory that very many mentions take.
_CHUNK = 8192
# As in `model/pair_classifier.py`.
_DISTANCES = (0, 1, 2, 3, 5, 9, 17, 33)


class FrozenPipe(Pipe):
    """A component whose weights are arrays and whose other data can be JSON.

    arrays: by name. data: `settings` and `tokenizer`, `graph` as the component has them.
    """

    def __init__(self, nlp: Language, name: str, overwrite: bool = False):
        register_extensions()
        self.vocab, self.name, self.overwrite = nlp.vocab, name, overwrite
        self.arrays: dict[str, NDArray[Any]] = {}
        self.data: dict[str, Any] = {}

    def set_data(self, data: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Give the component its data; `from_bytes` does so, too."""
        self.data, self.arrays = data, arrays
        for label in data["settings"].get("labels", ()):
            self.vocab.strings.add(label)

    @abstractmethod
    def annotate(self, docs: Sequence[Doc]) -> None:
        """Set what the component finds on Docs."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.data["settings"].get("labels", ())) if self.data else ()

    def __call__(self, doc: Doc) -> Doc:
        return next(self.pipe(iter([doc]), batch_size=1), doc)

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        handle_error = self.get_error_handler()
        for docs in minibatch(stream, size=batch_size):
            docs = list(docs)
            try:
                self.annotate(docs)
                yield from docs
            except Exception as error:
                handle_error(self.name, self, docs, error)

    def initialize(self, get_examples: Callable[[], Iterable[Example]], **settings: Any) -> None:
        raise MMCoTError(Errors.E443)

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        packed = io.BytesIO()
        arrays: Any = self.arrays
        numpy.savez(packed, **arrays)
        return srsly.msgpack_dumps({**self.data, "arrays": packed.getvalue()})

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> Self:
        message = srsly.msgpack_loads(data)
        # Without pickle, which could run anything.
        with numpy.load(io.BytesIO(message.pop("arrays")), allow_pickle=False) as arrays:
            self.set_data(message, dict(arrays))
        return self

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        Path(path).write_bytes(self.to_bytes())

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> Self:
        return self.from_bytes(Path(path).read_bytes())

    def get_vectors(self, docs: Iterable[Doc], width: int) -> list[NDArray[Any]]:
        """The part of each Doc's token vectors that the component reads, (tokens, width). Raises
        MMCoTError where a Doc has not one vector a token from the encoder."""
        first, vectors = self.data["settings"]["part"] * width, []
        for doc in docs:
            if len(doc) and len(doc.tensor) != len(doc):
                raise MMCoTError(Errors.E405.format(component=self.name, text=doc.text[:60]))
            vectors.append(doc.tensor[:, first : first + width])
        return vectors


class StandaloneEncoder(FrozenPipe):
    """Sets `doc.tensor`, a vector a token, by an encoder on ONNX Runtime. Where components read the
    encoder by different poolings, it is made of a part for each."""

    def set_data(self, data: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        super().set_data(data, arrays)
        self.encoder = NumpyEncoder(data["settings"], data["tokenizer"], data["graph"], arrays)

    def annotate(self, docs: Sequence[Doc]) -> None:
        for doc, vectors in zip(docs, self.encoder.encode(docs), strict=True):
            doc.tensor = vectors  # type: ignore[assignment]


class StandaloneNER(FrozenPipe):
    """`mmcot_standalone_ner`: what `export --standalone` makes of `mmcot_ner`.

    overwrite: replace entities that are already set.
    """

    # arrays: `weight` (tags, width), `bias` (tags,), `transitions` (tags + 1, tags + 1), all
    # divided by the temperature. settings: `labels`, `threshold` and `part`, the number of the part
    # of the token vectors that it reads.

    def annotate(self, docs: Sequence[Doc]) -> None:
        filled = {i: doc for i, doc in enumerate(docs) if len(doc)}
        weight, bias = self.arrays["weight"].T, self.arrays["bias"]
        vectors = self.get_vectors(filled.values(), len(weight))
        emissions = {i: own @ weight + bias for i, own in zip(filled, vectors, strict=True)}
        transitions, threshold = self.arrays["transitions"], self.data["settings"]["threshold"]
        found = decode_mentions(docs, emissions, transitions, self.labels, threshold)
        for doc, mentions in zip(docs, found, strict=True):
            set_mentions(doc, mentions, self.overwrite)

    def score(self, examples: Iterable[Example], **settings: Any) -> dict[str, Any]:
        return get_ner_prf(examples)


class StandaloneRel(FrozenPipe):
    """`mmcot_standalone_rel`: what `export --standalone` makes of `mmcot_rel`.

    overwrite: replace relations that are already set.
    """

    # arrays: those of `model/pair_classifier.py`'s PairHead. settings: `labels`, `types`, `legal`,
    # `threshold`, `max_distance` and `part`.

    def annotate(self, docs: Sequence[Doc]) -> None:
        settings = self.data["settings"]
        entries = [find_candidates(doc, settings["max_distance"]) for doc in docs]
        filled = [entry for entry in entries if len(entry.pairs)]
        scores = self._score_pairs(filled, settings)
        found = pick_relations(entries, scores, self.labels, settings["threshold"])
        for doc, predictions in zip(docs, found, strict=True):
            set_predictions(doc, predictions, self.overwrite)

    def _score_pairs(
        self, entries: Sequence[DocPairs], settings: dict[str, Any]
    ) -> NDArray[numpy.float64]:
        """(pairs, 1 + labels) of all entries: probabilities, the first column no relation."""
        if not entries:
            return numpy.zeros((0, 1 + len(self.labels)))
        a: Any = self.arrays
        # All entries are one after another: tokens, mentions and pairs count through.
        vectors = self.get_vectors([entry.doc for entry in entries], a["head.weight"].shape[1])
        states: Any = numpy.concatenate(vectors)
        sizes = [(len(e.doc), len(e.mentions), len(e.pairs)) for e in entries]
        tokens, mentions, n_pairs = numpy.array(sizes).T
        first_token, first_mention = tokens.cumsum() - tokens, mentions.cumsum() - mentions
        doc = numpy.repeat(numpy.arange(len(entries)), n_pairs)
        pairs = numpy.concatenate([entry.pairs for entry in entries]) + first_mention[doc, None]

        index = {label: i + 1 for i, label in enumerate(settings["types"])}
        spans = [mention for entry in entries for mention in entry.mentions]
        offsets = numpy.repeat(first_token, mentions)
        starts, ends = numpy.array([(m.start, m.end) for m in spans], dtype="int64").T + offsets
        types = numpy.array([index.get(m.label_, 0) for m in spans])
        own = average_spans(states, starts, ends)
        heads = own @ a["head.weight"].T + a["head.bias"] + a["head_type.weight"][types]
        tails = own @ a["tail.weight"].T + a["tail_type.weight"][types]
        whole = average_spans(states, first_token, first_token + tokens) @ a["doc.weight"].T
        logits = []
        for part in numpy.split(numpy.arange(len(pairs)), range(_CHUNK, len(pairs), _CHUNK)):
            head, tail = pairs[part].T
            left = numpy.minimum(ends[head], ends[tail])
            right = numpy.maximum(left, numpy.maximum(starts[head], starts[tail]))
            bucket = numpy.searchsorted(_DISTANCES, right - left, side="right") - 1
            bucket += len(_DISTANCES) * (starts[head] > starts[tail])
            summed = heads[head] + tails[tail] + whole[doc[part]] + a["distance.weight"][bucket]
            summed += average_spans(states, left, right) @ a["around.weight"].T
            summed = numpy.maximum(summed, 0.0)
            logits.append(summed @ a["output.weight"].T + a["output.bias"])
        scores = numpy.concatenate(logits)
        legal = [mask_legal(entry, settings["legal"], self.labels) for entry in entries]
        scores[~numpy.concatenate(legal)] = -numpy.inf
        chances = numpy.exp(scores - scores.max(axis=1, keepdims=True))
        result: NDArray[numpy.float64] = chances / chances.sum(axis=1, keepdims=True)
        return result


class NumpyProducts(NumpyOps):
    """NumpyOps whose matrix products are numpy's instead of those of thinc's BLIS.

    A CNN spends nearly all its time in them, and BLIS uses a generic kernel on processors that it
    does not know: there numpy was three times as fast (research/README.md).
    """

    gemm = Ops.gemm


def use_numpy_products() -> Callable[[Language], Language]:
    """`spacy_mmcot.NumpyProducts.v1`, in exported pipelines `spacy_mmcot.StandaloneProducts.v1`: a
    callback for `[nlp.after_pipeline_creation]`. It runs in training and whenever the pipeline is
    loaded. Layers on a GPU or another CPU backend, such as Apple's, stay as they are."""

    def change(nlp: Language) -> Language:
        ops = NumpyProducts()
        for _, pipe in nlp.pipeline:
            for node in pipe.model.walk() if hasattr(pipe, "model") else ():
                if type(node.ops) is NumpyOps:
                    node.ops = ops
        return nlp

    return change


def make_piece_embed(
    width: int,
    attrs: list[str],
    rows: List[int],  # noqa: UP006
) -> Model[List[Doc], List[Floats2d]]:  # noqa: UP006
    """`spacy_mmcot.StandalonePieces.v1`: what `export --standalone` makes of
    `spacy_mmcot.PieceEmbed.v1`, without a source.

    width, attrs, rows: as there.
    """
    pieces: Model[list[Doc], Ragged] = Model(
        "piece_table",
        partial(_run_pieces, made=[]),
        dims={"nO": width},
        params={"table": None, "weight": None, "bias": None},
        attrs={"tokenizer": "", "settings": {}},
    )
    return make_embed(width, attrs, rows, pieces)


def _run_pieces(
    model: Model, docs: Sequence[Doc], is_train: bool, made: list[PieceTable]
) -> tuple[Ragged, Callable[[Ragged], list[Doc]]]:
    if is_train:
        raise MMCoTError(Errors.E443)
    if not made:
        arrays = {name: model.get_param(name) for name in model.param_names}
        made.append(PieceTable(model.attrs["settings"], model.attrs["tokenizer"], arrays))
    lengths = model.ops.asarray1i([len(doc) for doc in docs])
    return Ragged(cast(Any, made[0].encode(docs)), lengths), lambda gradient: []


def make_encoder(nlp: Language, name: str) -> StandaloneEncoder:
    """`mmcot_standalone_encoder`: what `export --standalone` makes of a transformer."""
    return StandaloneEncoder(nlp, name)


make_ner, make_rel = StandaloneNER, StandaloneRel
registry.architectures.register("spacy_mmcot.StandalonePieces.v1", func=make_piece_embed)
registry.callbacks.register("spacy_mmcot.StandaloneProducts.v1", func=use_numpy_products)
# Where spacy-mmcot is installed beside a wheel, both have these names: the first one stays.
with suppress(ValueError):
    Language.factory("mmcot_standalone_encoder", func=make_encoder, assigns=["doc.tensor"])
    Language.factory(
        "mmcot_standalone_ner",
        func=make_ner,
        default_config={"overwrite": False},
        assigns=["doc.ents", "token.ent_iob", "token.ent_type"],
        default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
    )
    Language.factory(
        "mmcot_standalone_rel",
        func=make_rel,
        default_config={"overwrite": False},
        requires=["doc.ents"],
        assigns=["doc._.mmcot_rel"],
    )
