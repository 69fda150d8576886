"""Token vectors without torch: an encoder whose layers run on ONNX Runtime and whose embeddings and
prompts are numpy, and the word embeddings of a student without a transformer.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError
from ..model.wordpieces import Row, WordPieceTokenizer, group_by_length, make_rows

Floats = NDArray[numpy.float32]
# From the states of some windows to those that an encoder's layers return, both (pieces, width).
Layers = Callable[[Floats], Floats]
Result = TypeVar("Result")

# A part of a batch is one window, or several of at most MAX_PART pieces in all, padded, of which
# the shortest has at least MIN_FILL of the longest's length.
MAX_PART = 128
MIN_FILL = 0.8
# Running sums of all states cost as much as adding up so many times as many of them.
_FEW = 16


class LayerSession:
    """An encoder's layers as a session of ONNX Runtime.

    Windows run in parts of similar length, several at once, each by one thread: its small operators
    gain nothing from a second. The session starts with the first batch of a process, since none
    survives a fork or a pickle.

    graph: what `production.export.build_layers_graph` returned.
    """

    def __init__(self, graph: bytes):
        self.graph = graph
        # Session, threads and process.
        self._started: tuple[Any, ThreadPoolExecutor, int] | None = None

    def map(
        self, work: Callable[[int, int, Layers], Result], lengths: Sequence[int], threads: int
    ) -> list[Result]:
        """What `work` returns for each part of the windows, in their order. It gets the numbers of
        a part's first and last window, end exclusive, and what runs the layers on their states.

        lengths: pieces of each window, ascending; threads: parts that run at once, by the first
        call. Raises MMCoTError where ONNX Runtime is not installed."""
        if self._started is None or self._started[2] != os.getpid():
            self._started = _start_session(self.graph), ThreadPoolExecutor(threads), os.getpid()
        session, pool, _ = self._started

        def run(part: list[int]) -> Result:
            # Counted from the last window.
            first, last = len(lengths) - 1 - part[-1], len(lengths) - part[0]
            counts, steps = numpy.array(lengths[first:last]), numpy.arange(lengths[last - 1])
            mask = steps < counts[:, None]
            own = counts.cumsum() - counts
            # See `build_layers_graph`.
            inputs = {
                "grid": numpy.where(mask, own[:, None] + steps, 0),
                "mask": mask.astype("int32"),
                "places": mask.ravel().nonzero()[0],
            }

            def layers(states: Floats) -> Floats:
                (result,) = session.run(None, {"states": states, **inputs})
                return result

            return work(first, last, layers)

        # The longest windows first, so that all threads end together.
        parts = group_by_length(lengths[::-1], MAX_PART, MIN_FILL)
        return list(pool.map(run, parts))[::-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_started": None}


def _start_session(graph: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        message = Errors.E442.format(purpose="An exported pipeline", package="onnxruntime")
        raise MMCoTError(message) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # The fused operator takes five times as long as its parts.
    slow, providers = ["SkipLayerNormFusion"], ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(graph, options, providers, disabled_optimizers=slow)


def count_threads() -> int:
    """The threads of a pipeline: those that OMP_NUM_THREADS allows, or one for each core."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    if allowed.isdigit() and int(allowed):
        return int(allowed)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


class FastTokenizer:
    """A tokenizer of the library `tokenizers` with what WordPieceTokenizer uses of those of
    transformers. described: as JSON. settings: the ids of `unknown` and `padding`, or None."""

    def __init__(self, described: str, settings: Mapping[str, Any]):
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(described)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.unk_token_id, self.pad_token_id = settings["unknown"], settings["padding"]

    def __call__(
        self, texts: str | Sequence[str], pair: str | None = None, **settings: Any
    ) -> dict[str, Any]:
        if isinstance(texts, str):
            one = self._tokenizer.encode(texts, pair)
            return {"input_ids": one.ids, "special_tokens_mask": one.special_tokens_mask}
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return {"input_ids": [one.ids for one in encoded]}


class NumpyEncoder:
    """What `model/encoder.py`'s PromptedEncoder computes for texts alone.

    settings: `max_length`, `stride`, `first_position`, `epsilon`, `poolings` (what a token's
        vector is made of, one after another: "first" or "mean" of its pieces), and the tokenizer's
        `unknown` and `padding`.
    arrays: `words`, `positions`, `types` (or none), `scale` and `shift` of the embeddings;
        `cases` where the tokenizer ignores letter case; `project` and `project_bias` where these
        are narrower than the layers; those of a prompt, `vectors` or `down`, `down_bias`, `up`,
        `up_bias`.
    """

    def __init__(
        self, settings: Mapping[str, Any], tokenizer: str, graph: bytes, arrays: Mapping[str, Any]
    ):
        self.pieces = WordPieceTokenizer(FastTokenizer(tokenizer, settings))
        self.settings, self.arrays = settings, arrays
        positions = arrays["positions"][settings["first_position"] :]
        self.positions = positions + arrays["types"] if "types" in arrays else positions
        self.layers = LayerSession(graph)
        self.threads = count_threads()
        prompt = self._make_prompt(arrays["words"][:0])
        self.prompt_length = 0 if prompt is None else len(prompt)

    def encode(self, docs: Sequence[Doc]) -> list[Floats]:
        """The vectors of each Doc's tokens, (tokens, poolings * width)."""
        most = min(self.settings["max_length"], len(self.positions) - self.prompt_length)
        stride = self.settings["stride"]
        rows: list[Row] = []
        for index, doc in enumerate(docs):
            rows += make_rows(self.pieces, doc, index, most=most, stride=stride)
        vectors: list[list[Floats]] = [[] for _ in docs]
        for row, own in zip(rows, self._run_windows(rows), strict=True):
            vectors[row.doc].append(own)
        width = self.arrays["project" if "project" in self.arrays else "words"].shape[-1]
        none = numpy.zeros((0, width * len(self.settings["poolings"])), dtype="float32")
        return [numpy.concatenate(own or [none]) for own in vectors]

    def _run_windows(self, rows: Sequence[Row]) -> list[Floats]:
        """The vectors of the tokens that each window owns, (own tokens, poolings * width)."""
        if not rows:
            return []
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        lengths = [len(rows[i].ids) + self.prompt_length for i in order]

        def work(first: int, last: int, layers: Layers) -> list[Floats]:
            part = [rows[i] for i in order[first:last]]
            return self._pool(layers(self._embed(part)), part)

        vectors = itertools.chain.from_iterable(self.layers.map(work, lengths, self.threads))
        found = dict(zip(order, vectors, strict=True))
        return [found[i] for i in range(len(rows))]

    def _pool(self, states: Floats, part: Sequence[Row]) -> list[Floats]:
        """The vectors of the tokens that each window of a part owns from the part's states."""
        starts: list[int] = []
        start, ends = 0, []
        for row in part:
            first = start + self.prompt_length + row.own[0]
            starts += itertools.accumulate(row.counts[:-1], initial=first)
            ends.append(len(starts))
            start += self.prompt_length + len(row.ids)
        counts = [count for row in part for count in row.counts]
        each = [
            states[starts]
            if pooling == "first"
            else _average(states, numpy.array(starts), numpy.array(counts))
            for pooling in self.settings["poolings"]
        ]
        vectors = each[0] if len(each) == 1 else numpy.concatenate(each, axis=1)
        return [vectors[i:j] for i, j in itertools.pairwise([0, *ends])]

    def _embed(self, rows: Sequence[Row]) -> Floats:
        """What the first layer reads of windows, prompts first: (prompts + pieces, width), one
        window after another."""
        ids = list(itertools.chain.from_iterable(row.ids for row in rows))
        words = self.arrays["words"][ids].astype("float32", copy=False)
        embedded = words
        if "cases" in self.arrays:
            cases = list(itertools.chain.from_iterable(row.cases for row in rows))
            embedded = words + self.arrays["cases"][cases]
        n_prompts, sizes = self.prompt_length, [len(row.ids) for row in rows]
        if n_prompts:
            ends = numpy.cumsum(sizes)[:-1]
            each = zip(rows, numpy.split(words, ends), numpy.split(embedded, ends), strict=True)
            both = ((self._make_prompt(text[slice(*row.text)]), own) for row, text, own in each)
            embedded = numpy.concatenate(list(itertools.chain.from_iterable(both)))
        # The positions of prompts are behind those of pieces.
        places = [i for n in sizes for i in (*range(n, n + n_prompts), *range(n))]
        embedded += self.positions[places]
        return self._normalise(embedded)

    def _make_prompt(self, text: Floats) -> Floats | None:
        """The prompt vectors before a text's word embeddings, (text pieces, width)."""
        arrays = self.arrays
        if "vectors" in arrays:
            return arrays["vectors"]
        if "up" not in arrays:
            return None
        mean = text.sum(axis=0) / max(1, len(text))
        hidden = numpy.tanh(arrays["down"] @ mean + arrays["down_bias"])
        prompt: Floats = arrays["up"] @ hidden + arrays["up_bias"]
        return prompt.reshape(-1, text.shape[1])

    def _normalise(self, embedded: Floats) -> Floats:
        """embedded: (pieces, width), which is overwritten. Returns what the first layer reads."""
        arrays, width = self.arrays, embedded.shape[1]
        # Sums by `einsum` take a third of the time.
        embedded -= numpy.einsum("ij->i", embedded)[:, None] / numpy.float32(width)
        variance = numpy.einsum("ij,ij->i", embedded, embedded) / numpy.float32(width)
        embedded /= numpy.sqrt(variance + numpy.float32(self.settings["epsilon"]))[:, None]
        embedded *= arrays["scale"]
        embedded += arrays["shift"]
        if "project" in arrays:
            return embedded @ arrays["project"] + arrays["project_bias"]
        return embedded


class PieceTable:
    """What `model/cnn.py`'s PieceVectors computes: the mean of a token's rows in a table of word
    pieces, through one linear layer.

    arrays: `table` (pieces, columns), `weight` (width, columns) and `bias` (width,).
    """

    def __init__(self, settings: Mapping[str, Any], tokenizer: str, arrays: Mapping[str, Any]):
        self.pieces = WordPieceTokenizer(FastTokenizer(tokenizer, settings))
        self.arrays, self.limit = arrays, settings["max_pieces"]

    def encode(self, docs: Sequence[Doc]) -> Floats:
        """(tokens, width) of all Docs, one after another."""
        words = [word for doc in docs for word in self.pieces.split_doc(doc, self.limit)]
        weight, bias = self.arrays["weight"], self.arrays["bias"]
        if not words:
            return numpy.zeros((0, len(bias)), dtype="float32")
        rows = self.arrays["table"][list(itertools.chain.from_iterable(words))].astype("float32")
        counts = numpy.array([len(word) for word in words])
        vectors: Floats = _average(rows, counts.cumsum() - counts, counts) @ weight.T + bias
        return vectors


def average_spans(
    states: Floats, starts: NDArray[numpy.int64], ends: NDArray[numpy.int64]
) -> Floats:
    """The mean state of each span, (spans, width), 0 for an empty one. states: (tokens, width)."""
    counts = ends - starts
    if counts.sum() < _FEW * len(states):
        means = numpy.zeros((len(starts), states.shape[1]), dtype="float32")
        filled = counts > 0
        means[filled] = _average(states, starts[filled], counts[filled])
        return means
    sums = numpy.zeros((len(states) + 1, states.shape[1]))
    numpy.cumsum(states, axis=0, out=sums[1:])
    # The weights' precision: they would otherwise be converted for each product.
    return ((sums[ends] - sums[starts]) / numpy.maximum(counts, 1)[:, None]).astype("float32")


def _average(pieces: Floats, starts: NDArray[numpy.int64], counts: NDArray[numpy.int64]) -> Floats:
    """The mean of each token's pieces, (tokens, width). pieces: (pieces, width); starts: the first
    of each token, (tokens,); counts: at least 1, (tokens,)."""
    vectors = pieces[starts]
    # Most tokens have one: `reduceat` takes several times as long.
    longer, step = numpy.flatnonzero(counts > 1), 1
    while len(longer):
        vectors[longer] += pieces[starts[longer] + step]
        step += 1
        longer = longer[counts[longer] > step]
    vectors /= counts[:, None].astype("float32")
    return vectors
