"""PromptedEncoder as the thinc model of spaCy's `transformer` component."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy
import torch
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch, WordpieceBatch
from thinc.api import Model
from thinc.types import Ragged
from torch import Tensor
from transformers import AutoTokenizer
from transformers.modeling_outputs import BaseModelOutput

from ..errors import Errors, MMCoTError
from ..types import PROMPT_TARGET_KEY
from .bridge import Settings, TorchShim, torch_shim
from .encoder import build_from_config, load_pretrained
from .knowledge import knowledge_tags, segment_text
from .prompted_encoder import PieceBatch, PromptedEncoder
from .wordpieces import Window, make_windows

# Windows are run in groups of like length: at most this many padded pieces a group, and a
# window joins a group only while at least this share of its padded length is text.
MAX_GROUP_PIECES = 4096
MIN_GROUP_FILL = 0.8


class Row(NamedTuple):
    """One window, ready for padding. `text` and `own` bound all its text pieces, and those that it
    answers for, within `ids`; `doc` is the index of its Doc."""

    ids: list[int]
    text: tuple[int, int]
    segment_start: int
    own: tuple[int, int]
    tags: list[int] | None
    doc: int


def encoder_model(
    source: str,
    *,
    segment_length: int,
    max_length: int,
    stride: int,
    regression: float,
    encoder_lr_scale: float,
    module_settings: Settings,
) -> Model[list[Doc], FullTransformerBatch]:
    """The thinc model. It holds no torch module until `initialize` loads `source`, or
    `from_bytes` rebuilds what was saved."""
    return Model(
        "prompted_transformer",
        _forward,
        init=_init,
        dims={"nO": None},
        shims=[TorchShim(build_module, {"encoder.": encoder_lr_scale})],
        attrs={
            "source": source,
            "segment_length": segment_length,
            "max_length": max_length,
            "stride": stride,
            "regression": regression,
            "module_settings": module_settings,
        },
    )


def build_module(settings: Settings) -> PromptedEncoder:
    """A PromptedEncoder from its settings alone, weights still to be loaded."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in settings["tokenizer"].items():
            (Path(folder) / name).write_bytes(content)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return PromptedEncoder(build_from_config(settings["config"]), tokenizer, **settings["module"])


def _init(model: Model, X: Any = None, Y: Any = None) -> None:
    shim = torch_shim(model)
    if shim.module is None:
        tokenizer, encoder = load_pretrained(model.attrs["source"])
        module = PromptedEncoder(encoder, tokenizer, **model.attrs["module_settings"])
        shim.set_module(
            module,
            {
                "config": encoder.config.to_dict(),
                "tokenizer": _tokenizer_files(tokenizer),
                "module": dict(model.attrs["module_settings"]),
            },
        )
    model.set_dim("nO", shim.module.width)


def _tokenizer_files(tokenizer: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _forward(
    model: Model, docs: Sequence[Doc], is_train: bool
) -> tuple[FullTransformerBatch, Callable[[FullTransformerBatch], list[Doc]]]:
    shim = torch_shim(model)
    module: PromptedEncoder = shim.module
    if module is None:
        raise MMCoTError(Errors.E404.format(source=model.attrs["source"]))
    rows, spans, lengths = _make_rows(model, module, docs)
    module.train(is_train)
    with torch.set_grad_enabled(is_train):
        states, prompts = _run(module, rows, shim.device)
    output = FullTransformerBatch(
        spans=spans,
        wordpieces=_own_wordpieces(module, rows),
        model_output=BaseModelOutput(last_hidden_state=cast(Any, states.detach())),
        align=_align(rows, lengths, states.shape[1]),
    )
    extra = _regression_loss(model, docs, rows, prompts) if is_train else None

    def backprop(d_output: FullTransformerBatch) -> list[Doc]:
        (gradient,) = d_output.model_output.values()
        tensors, gradients = [states], [gradient.to(states.device)]
        if extra is not None:
            tensors.append(extra)
            gradients.append(torch.ones_like(extra))
        torch.autograd.backward(tensors, gradients)
        return list(docs)

    return output, backprop


def _make_rows(
    model: Model, module: PromptedEncoder, docs: Sequence[Doc]
) -> tuple[list[Row], list[list[Any]], list[list[int]]]:
    """The windows of all docs; per doc, the spans its windows own and its tokens' piece counts."""
    pieces = module.pieces
    segment_length = model.attrs["segment_length"]
    segments: list[list[int]] = [[] for _ in docs]
    if segment_length:
        texts = [segment_text(doc) for doc in docs]
        segments = pieces.text_pieces(texts, segment_length)
    limit = min(model.attrs["max_length"], module.max_pieces)
    rows: list[Row] = []
    spans: list[list[Any]] = []
    lengths: list[list[int]] = []
    for index, doc in enumerate(docs):
        segment = segments[index]
        special = pieces.n_special_pair if segment else pieces.n_special
        budget = limit - special - len(segment)
        words = pieces.pieces(doc, max(1, budget))
        counts = [len(word) for word in words]
        tags = knowledge_tags(doc) if module.tags is not None else None
        windows = make_windows(counts, budget, model.attrs["stride"])
        for window in windows:
            rows.append(_make_row(pieces, words, window, segment, tags, index))
        spans.append([doc[window.own_start : window.own_end] for window in windows])
        lengths.append(counts)
    return rows, spans, lengths


def _make_row(
    pieces: Any, words: list[Any], window: Window, segment: list[int], tags: Any, doc: int
) -> Row:
    ids = list(pieces.prefix)
    own = [0, 0]
    row_tags = [0] * len(ids) if tags is not None else None
    for i in range(window.start, window.end):
        if i == window.own_start:
            own[0] = len(ids)
        ids.extend(words[i])
        if row_tags is not None:
            row_tags.extend([int(tags[i])] * len(words[i]))
        if i == window.own_end - 1:
            own[1] = len(ids)
    text = (len(pieces.prefix), len(ids))
    if segment:
        ids += pieces.middle
        segment_start = len(ids)
        ids += [*segment, *pieces.pair_suffix]
    else:
        ids += pieces.suffix
        segment_start = len(ids)
    return Row(ids, text, segment_start, (own[0], own[1]), row_tags, doc)


def _run(module: PromptedEncoder, rows: list[Row], device: Any) -> tuple[Tensor, Tensor | None]:
    """The own states of all windows, (windows, most own pieces, width), zero-padded, and the
    projected prompt states, (windows, length, width), both in the order of `rows`."""
    longest = max(row.own[1] - row.own[0] for row in rows)
    order: list[int] = []
    states: list[Tensor] = []
    prompts: list[Tensor] = []
    for group in _groups(rows):
        batch = _pad([rows[i] for i in group], module, device)
        hidden, prompt = module(batch)
        for position, i in enumerate(group):
            start, end = rows[i].own
            own = hidden[position, start:end]
            states.append(torch.nn.functional.pad(own, (0, 0, 0, longest - len(own))))
        if prompt is not None:
            prompts.append(prompt)
        order.extend(group)
    back = torch.tensor(numpy.argsort(order), device=device)
    stacked = torch.stack(states).index_select(0, back)
    return stacked, torch.cat(prompts).index_select(0, back) if prompts else None


def _groups(rows: list[Row]) -> list[list[int]]:
    """Indexes of rows, longest first, in groups that waste little on padding."""
    groups: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i].ids)):
        if groups:
            length = len(rows[groups[-1][0]].ids)
            full = (len(groups[-1]) + 1) * length > MAX_GROUP_PIECES
            if not full and len(rows[i].ids) >= MIN_GROUP_FILL * length:
                groups[-1].append(i)
                continue
        groups.append([i])
    return groups


def _pad(rows: list[Row], module: PromptedEncoder, device: Any) -> PieceBatch:
    length = max(len(row.ids) for row in rows)
    ids = numpy.full((len(rows), length), module.pieces.tokenizer.pad_token_id or 0)
    mask, types, text, tags = (numpy.zeros((len(rows), length), dtype="int64") for _ in range(4))
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        mask[i, : len(row.ids)] = 1
        types[i, row.segment_start : len(row.ids)] = 1
        text[i, row.text[0] : row.text[1]] = 1
        if row.tags is not None:
            tags[i, : len(row.tags)] = row.tags
    tensors = [torch.from_numpy(array).to(device) for array in (ids, mask, types, text, tags)]
    if module.tags is None:
        tensors[4] = None  # type: ignore[call-overload]
    return PieceBatch(*tensors)


def _own_wordpieces(module: PromptedEncoder, rows: list[Row]) -> WordpieceBatch:
    """What spacy-transformers hands on beside the states: own pieces only, padded alike."""
    own = [row.ids[row.own[0] : row.own[1]] for row in rows]
    longest = max(map(len, own))
    tokenizer = module.pieces.tokenizer
    ids = numpy.full((len(own), longest), tokenizer.pad_token_id or 0, dtype="int64")
    mask = numpy.zeros((len(own), longest), dtype="float32")
    for i, row in enumerate(own):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return WordpieceBatch(
        strings=module.pieces.strings[ids].tolist(),
        input_ids=ids,  # type: ignore[arg-type]
        attention_mask=mask,  # type: ignore[arg-type]
        lengths=[len(row) for row in own],
        token_type_ids=None,
    )


def _align(rows: list[Row], lengths: list[list[int]], padded: int) -> Ragged:
    """Every token's pieces as indexes into the flattened (windows, padded) grid of states."""
    indexes = [
        numpy.arange(i * padded, i * padded + row.own[1] - row.own[0]) for i, row in enumerate(rows)
    ]
    flat = numpy.concatenate(indexes).astype("int32")
    counts = numpy.array([count for doc in lengths for count in doc], dtype="int32")
    return Ragged(flat, counts)  # type: ignore[arg-type]


def _regression_loss(
    model: Model, docs: Sequence[Doc], rows: list[Row], prompts: Tensor | None
) -> Tensor | None:
    """weight x mean over windows of 1 - cosine(prompt state, knowledge target), for the docs that
    carry a target (see distillation/teach.py)."""
    weight = model.attrs["regression"]
    if prompts is None or not weight:
        return None
    losses = []
    for prompt, row in zip(prompts, rows, strict=True):
        data = docs[row.doc].user_data.get(PROMPT_TARGET_KEY)
        if data is not None:
            target = numpy.frombuffer(data, dtype="float16").astype("float32")
            if target.size != prompt.numel():
                raise MMCoTError(
                    Errors.E503.format(
                        found=target.size, length=prompt.shape[0], width=prompt.shape[1]
                    )
                )
            target_tensor = torch.from_numpy(target).to(prompt.device).view(prompt.shape)
            losses.append(1 - torch.cosine_similarity(prompt, target_tensor, dim=-1).mean())
    return weight * torch.stack(losses).mean() if losses else None
