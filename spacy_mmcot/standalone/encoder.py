"""Token vectors without torch: an encoder whose layers run on ONNX Runtime and whose embeddings and
prompts are numpy, and the word embeddings of a student without a transformer.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
from numpy.typing import NDArray
from spacy.tokens import Doc

from ..errors import Errors, MMCoTError
from ..model.wordpieces import Row, WordPieceTokenizer, group_by_length, make_row, make_windows

Floats = NDArray[numpy.float32]

# A part of a batch is one window, or several of at most MAX_PART pieces in all, padded, of which
# the shortest has at least MIN_FILL of the longest's length.
MAX_PART = 128
MIN_FILL = 0.8
# Pieces that are embedded at once: bounds memory.
_MAX_PIECES = 8192


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

    def run(self, states: Floats, lengths: NDArray[numpy.int64], threads: int) -> Floats:
        """states: (pieces, width), windows in order of length; lengths: (windows,), ascending;
        threads: parts that run at once, by the first call. Returns (pieces, width). Raises
        MMCoTError where ONNX Runtime is not installed."""
        if self._started is None or self._started[2] != os.getpid():
            self._started = _start_session(self.graph), ThreadPoolExecutor(threads), os.getpid()
        session, pool, _ = self._started
        starts = lengths.cumsum() - lengths

        def run(part: list[int]) -> Floats:
            # Counted from the last window.
            first, last = len(lengths) - 1 - part[-1], len(lengths) - part[0]
            counts, steps = lengths[first:last], numpy.arange(lengths[last - 1])
            mask = steps < counts[:, None]
            own = starts[first:last] - starts[first]
            # See `build_layers_graph`.
            inputs = {
                "states": states[starts[first] : starts[first] + counts.sum()],
                "grid": numpy.where(mask, own[:, None] + steps, 0),
                "mask": mask.astype("int32"),
                "places": mask.ravel().nonzero()[0],
            }
            (result,) = session.run(None, inputs)
            return result

        # The longest windows first, so that all threads end together.
        parts = group_by_length(lengths[::-1].tolist(), MAX_PART, MIN_FILL)
        return numpy.concatenate(list(pool.map(run, parts))[::-1])

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

    settings: `max_length`, `stride`, `max_positions`, `first_position`, `epsilon`, `pooling`
        ("first" or "mean" of a token's pieces), and the tokenizer's `unknown` and `padding`.
    arrays: `words`, `positions`, `types` (or none), `scale` and `shift` of the embeddings;
        `project` and `project_bias` where these are narrower than the layers; those of a prompt,
        `vectors` or `down`, `down_bias`, `up`, `up_bias`.
    """

    def __init__(
        self, settings: Mapping[str, Any], tokenizer: str, graph: bytes, arrays: Mapping[str, Any]
    ):
        self.pieces = WordPieceTokenizer(FastTokenizer(tokenizer, settings))
        self.settings, self.arrays = settings, arrays
        self.layers = LayerSession(graph)
        self.threads = count_threads()
        prompt = self._make_prompt(arrays["words"][:0])
        self.prompt_length = 0 if prompt is None else len(prompt)

    def encode(self, docs: Sequence[Doc]) -> list[Floats]:
        """The vectors of each Doc's tokens, (tokens, width)."""
        settings = self.settings
        room = settings["max_positions"] - settings["first_position"] - self.prompt_length
        budget = min(settings["max_length"], room) - self.pieces.n_special
        rows: list[Row] = []
        counts: list[list[int]] = []
        for index, doc in enumerate(docs):
            words = self.pieces.split_doc(doc, max(1, budget))
            counts.append([len(word) for word in words])
            for window in make_windows(counts[-1], budget, settings["stride"]):
                rows.append(make_row(self.pieces, words, window, (), None, index))
        states: list[list[Floats]] = [[] for _ in docs]
        for row, own in zip(rows, self._run_rows(rows), strict=True):
            states[row.doc].append(own)
        return list(map(self._pool, states, counts))

    def _pool(self, states: Sequence[Floats], lengths: Sequence[int]) -> Floats:
        """The vectors of a Doc's tokens from its windows' states."""
        if not lengths:
            width = self.arrays["project" if "project" in self.arrays else "words"].shape[-1]
            return numpy.zeros((0, width), dtype="float32")
        pieces = numpy.concatenate(states)
        if self.settings["pooling"] == "mean":
            return _average(pieces, lengths)
        return pieces[numpy.cumsum(lengths) - lengths]

    def _run_rows(self, rows: Sequence[Row]) -> list[Floats]:
        """The states of each row's own pieces, (own pieces, width)."""
        results: list[Any] = [None] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        while order:
            # The next rows, at least one, with at most _MAX_PIECES together.
            totals = itertools.accumulate(len(rows[i].ids) for i in order)
            count = max(1, sum(1 for total in totals if total <= _MAX_PIECES))
            group, order = order[:count], order[count:]
            lengths = numpy.array([len(rows[i].ids) for i in group]) + self.prompt_length
            embedded = numpy.concatenate([self._embed(rows[i]) for i in group])
            states = self.layers.run(self._normalise(embedded), lengths, self.threads)
            for i, end in zip(group, lengths.cumsum(), strict=True):
                first = end - len(rows[i].ids)
                results[i] = states[first + rows[i].own[0] : first + rows[i].own[1]]
        return results

    def _embed(self, row: Row) -> Floats:
        """The embeddings of a window, prompts first, before the norm: (prompts + pieces, width)."""
        arrays, n = self.arrays, len(row.ids)
        words = arrays["words"][row.ids].astype("float32")
        first = self.settings["first_position"]
        positions = arrays["positions"][first : first + n]
        prompt = self._make_prompt(words[row.text[0] : row.text[1]])
        if prompt is not None:
            after = arrays["positions"][first + n : first + n + len(prompt)]
            words = numpy.concatenate([prompt, words])
            positions = numpy.concatenate([after, positions])
        embedded: Floats = words + positions
        return embedded + arrays["types"] if "types" in arrays else embedded

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
        """embedded: (pieces, width). Returns what the first layer reads."""
        arrays = self.arrays
        centred = embedded - embedded.mean(axis=1, keepdims=True)
        variance = (centred * centred).mean(axis=1, keepdims=True)
        states = centred / numpy.sqrt(variance + numpy.float32(self.settings["epsilon"]))
        states = states * arrays["scale"] + arrays["shift"]
        if "project" in arrays:
            states = states @ arrays["project"] + arrays["project_bias"]
        return states.astype("float32")


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
        vectors: Floats = _average(rows, [len(word) for word in words]) @ weight.T + bias
        return vectors


def _average(pieces: Floats, lengths: Sequence[int]) -> Floats:
    """The mean of each token's pieces, (tokens, width). pieces: (pieces, width)."""
    counts = numpy.array(lengths)
    sums = numpy.add.reduceat(pieces, counts.cumsum() - counts, axis=0)
    return sums / counts[:, None].astype("float32")
