"""What a pipeline costs in `nlp.pipe`, and what it is compared with: its own encoder alone, spaCy's
stock components on that encoder, and a GLiNER of the small size.

The contenders take turns batch by batch, so that other load on the machine affects all alike.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import spacy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import minibatch

from spacy_mmcot.model.encoder import PromptedEncoder
from spacy_mmcot.model.encoder_bridge import find_torch_encoder
from spacy_mmcot.model.wordpieces import make_rows

# Runs the batch of the given number.
Contender = Callable[[int], None]


def take_turns(
    contenders: Mapping[str, Contender], n_batches: int, rounds: int
) -> dict[str, NDArray[numpy.float64]]:
    """The seconds of each contender, (rounds, batches). Each runs the first batch beforehand, to
    warm up."""
    for run in contenders.values():
        run(0)
    names = list(contenders)
    seconds = {name: numpy.zeros((rounds, n_batches)) for name in names}
    for number in range(rounds):
        for batch in range(n_batches):
            # The one that goes second finds warmer caches: take turns at that, too.
            first = (number + batch) % len(names)
            for name in names[first:] + names[:first]:
                started = time.perf_counter()
                contenders[name](batch)
                seconds[name][number, batch] = time.perf_counter() - started
    return seconds


def make_contender(
    nlp: Language, batches: Sequence[list[str]], size: int, disable: Sequence[str] = ()
) -> Contender:
    """A pipeline over batches of texts, `size` of them at once, without some of its components."""

    def run(number: int) -> None:
        with nlp.select_pipes(disable=list(disable)):
            for _ in nlp.pipe(batches[number], batch_size=size):
                pass

    return run


# DeBERTa-v3-small and what GLiNER small puts on it.
ENCODER: dict[str, Any] = {
    "model_type": "deberta-v2",
    "vocab_size": 128_100,
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "relative_attention": True,
    "position_buckets": 256,
    "max_relative_positions": -1,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}
SPANS: dict[str, Any] = {"span_mode": "markerV0", "max_width": 12, "hidden_size": 512}
# Random weights find spans everywhere at the usual 0.5, and sorting those out is no part of a
# trained model's time.
THRESHOLD = 0.99


def has_gliner() -> bool:
    return importlib.util.find_spec("gliner") is not None


def make_gliner(
    module: PromptedEncoder, labels: Sequence[str], batches: Sequence[list[str]], size: int
) -> Contender:
    """Finds entities of the labels in batches of texts, `size` of them at once. The texts are cut
    into word pieces as `module` does: the real vocabulary is not at hand, and is of that kind."""
    from gliner import GLiNER

    with tempfile.TemporaryDirectory() as folder:
        module.pieces.tokenizer.save_pretrained(folder)
        names = {"model_name": str(Path(folder)), "name": "small"}
        settings = {**names, **SPANS, "encoder_config": dict(ENCODER)}
        model = GLiNER.from_config(settings, backbone_from_pretrained=False)
    # It warns of each text that is longer than its windows.
    logging.getLogger("gliner").setLevel(logging.ERROR)

    def run(number: int) -> None:
        model.inference(batches[number], list(labels), threshold=THRESHOLD, batch_size=size)

    return run


LIMIT_BATCH = 32
STOCK_CONFIG: dict[str, Any] = {
    "model": {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "ner",
        "extra_state_tokens": False,
        "hidden_width": 64,
        "maxout_pieces": 2,
        "use_upper": False,
        "tok2vec": {
            "@architectures": "spacy-transformers.TransformerListener.v1",
            "grad_factor": 1.0,
            "pooling": {"@layers": "reduce_mean.v1"},
        },
    }
}


def find_encoder(nlp: Language) -> PromptedEncoder | None:
    """The torch encoder of a pipeline, None if it has none with its own layers."""
    found = (find_torch_encoder(component) for _, component in nlp.pipeline)
    return next((module for module in found if module is not None), None)


def get_entity_labels(nlp: Language) -> Sequence[str]:
    """The labels of the first component that has some."""
    named = (getattr(component, "labels", ()) for _, component in nlp.pipeline)
    return next(filter(None, named), ("ENTITY",))


def make_encoder_contender(
    module: PromptedEncoder, docs: Iterable[Doc], parts: int
) -> Callable[[int], None]:
    """Runs the encoder over the Docs' word pieces, in `parts` that together are all of them:
    sorted by length over all Docs, tokenized and padded beforehand. What no pipeline on this
    encoder can be expected to beat."""
    pieces, most = module.pieces, module.max_pieces
    windows = [row for doc in docs for row in make_rows(pieces, doc, 0, most=most, stride=0)]
    rows = sorted((window.ids for window in windows), key=len)
    padding = pieces.pad_id
    batches = [_pad(rows[i : i + LIMIT_BATCH], padding) for i in range(0, len(rows), LIMIT_BATCH)]

    def run(number: int) -> None:
        module.eval()
        with torch.inference_mode():
            for ids, mask in batches[number::parts]:
                module.encoder(input_ids=ids, attention_mask=mask)

    return run


def make_session_contender(nlp: Language, batches: Sequence[list[str]]) -> Contender | None:
    """The layers alone of a standalone pipeline, on windows and threads as it has them; None for
    any other one. The states are zeros, which take the same time."""
    encoder = next((pipe.encoder for _, pipe in nlp.pipeline if hasattr(pipe, "encoder")), None)
    if encoder is None:
        return None
    lengths: list[Sequence[int]] = []
    session = encoder.layers

    def record(work: Any, own: Sequence[int], threads: int) -> list[Any]:
        lengths.append(own)
        return session.map(work, own, threads)

    encoder.layers = SimpleNamespace(map=record)
    vectors = [encoder.encode(list(map(nlp.make_doc, batch)))[0] for batch in batches]
    encoder.layers = session
    width = vectors[0].shape[1] // len(encoder.settings["poolings"])
    states = numpy.zeros((max(map(sum, lengths)), width), dtype="float32")

    def run(number: int) -> None:
        starts = [0, *itertools.accumulate(lengths[number])]
        session.map(
            lambda first, last, layers: layers(states[starts[first] : starts[last]]),
            *(lengths[number], encoder.threads),
        )

    return run


def _pad(rows: Sequence[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = [torch.tensor(row) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=padding)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()


def make_stock_pipeline(nlp: Language, module: PromptedEncoder) -> Language:
    """spaCy's `transformer` and `ner` on the same encoder weights, with as many entity labels as
    `nlp` has; the parser's own weights are untrained, which costs the same time."""
    stock = spacy.blank(nlp.meta["lang"])
    with tempfile.TemporaryDirectory() as folder:
        module.encoder.save_pretrained(folder)
        module.pieces.tokenizer.save_pretrained(folder)
        architecture = {"@architectures": "spacy-transformers.TransformerModel.v3", "name": folder}
        stock.add_pipe("transformer", config={"model": architecture})
        stock.add_pipe("ner", config=STOCK_CONFIG)
        text = "stock"
        examples = [
            Example.from_dict(stock.make_doc(text), {"entities": [(0, len(text), label)]})
            for label in get_entity_labels(nlp)
        ]
        stock.initialize(lambda: examples)
    return stock


LATENCY_TEXTS = 200


def measure_pipe(
    nlp: Language,
    texts: Sequence[str],
    rounds: int = 5,
    batch_size: int = 256,
    exported: Language | None = None,
) -> dict[str, Any]:
    """Words/s of the pipeline, without each component that no later one needs, of its bare encoder
    (the limit), of spaCy's stock transformer and ner on the same encoder, of a GLiNER of its small
    size where that package is installed, of `exported`, and of its layers alone where it stands
    alone.

    All take turns batch by batch, so that whatever else the machine does meets all alike; of each
    batch the median over `rounds` passes counts. `ratio_without_NAME` is the whole pipeline's speed
    over that of the one without: 0.9 says that the component costs a tenth. Latencies are those
    of single texts, in milliseconds.
    """
    batches = [list(batch) for batch in minibatch(texts, batch_size)]
    contenders: dict[str, Contender] = {"whole": make_contender(nlp, batches, batch_size)}
    for name in _find_leaves(nlp):
        contenders[f"without_{name}"] = make_contender(nlp, batches, batch_size, [name])
    encoder = find_encoder(nlp)
    if encoder is not None:
        contenders["limit"] = make_encoder_contender(
            encoder, map(nlp.make_doc, texts), len(batches)
        )
        stock = make_stock_pipeline(nlp, encoder)
        contenders["spacy_trf_ner"] = make_contender(stock, batches, batch_size)
        if has_gliner():
            contenders["gliner_small"] = make_gliner(
                encoder, get_entity_labels(nlp), batches, batch_size
            )
    if exported is not None:
        contenders["exported"] = make_contender(exported, batches, batch_size)
        session = make_session_contender(exported, batches)
        if session is not None:
            contenders["session"] = session
    words = sum(len(doc) for doc in map(nlp.make_doc, texts))
    seconds = take_turns(contenders, len(batches), rounds)
    speed = {
        name: words / numpy.median(spent, axis=0).sum().item() for name, spent in seconds.items()
    }
    ratios = {f"ratio_{k}": speed["whole"] / v for k, v in speed.items() if "without" in k}
    for other in ("limit", "spacy_trf_ner", "gliner_small"):
        if other in speed:
            ratios[f"ratio_to_{other}"] = speed["whole"] / speed[other]
    if exported is not None:
        ratios["runtime_speedup"] = speed["exported"] / speed["whole"]
        if "limit" in speed:
            ratios["ratio_exported_to_limit"] = speed["exported"] / speed["limit"]
        if "session" in speed:
            ratios["ratio_exported_to_session"] = speed["exported"] / speed["session"]
    figures: dict[str, Any] = {
        "docs": len(texts),
        "words": words,
        "threads": torch.get_num_threads(),
        **{f"words_per_second_{name}": round(value) for name, value in speed.items()},
        **{name: round(value, 3) for name, value in ratios.items()},
    }
    named = {"": nlp} if exported is None else {"": nlp, "_exported": exported}
    for name, values in measure_latencies(named, texts[:LATENCY_TEXTS]).items():
        for share, value in zip((50, 95, 99), numpy.percentile(values, (50, 95, 99)), strict=True):
            figures[f"latency_ms_p{share}{name}"] = round(1000 * float(value), 2)
    return figures


def measure_latencies(
    pipelines: Mapping[str, Language], texts: Sequence[str]
) -> dict[str, list[float]]:
    """Seconds that each pipeline takes for each text by itself."""
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    for text in texts:
        for name, nlp in pipelines.items():
            started = time.perf_counter()
            nlp(text)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _find_leaves(nlp: Language) -> list[str]:
    """The components whose attributes no later component says it needs, and that hand on no
    encoder states."""
    leaves = []
    for i, name in enumerate(nlp.pipe_names):
        assigned = set(nlp.get_pipe_meta(name).assigns)
        later = [nlp.get_pipe_meta(other).requires for other in nlp.pipe_names[i + 1 :]]
        listened = hasattr(nlp.get_pipe(name), "listeners")
        if not listened and not any(assigned & set(required) for required in later):
            leaves.append(name)
    return leaves
