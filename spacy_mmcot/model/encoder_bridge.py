"""PromptedEncoder as the thinc model of spaCy's `transformer` component."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy
import torch
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch, WordpieceBatch
from thinc.api import Model
from thinc.types import Ragged
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from ..errors import Errors, MMCoTError
from ..types import PROMPT_TARGET_KEY
from .bridge import Settings, TorchShim, set_mode, torch_shim
from .encoder import PictureBatch, PromptedEncoder
from .encoder_rows import (
    DocPictures,
    PictureTraining,
    Row,
    groups,
    make_row,
    matching_loss,
    pad,
    see,
)
from .knowledge import knowledge_tags, segment_parts
from .prompts import PromptedBatch, View
from .sources import build_from_config, keep_layers, load_pretrained, tokenizer_files, tokenizer_of
from .vision import VisionModel, vision_grid
from .wordpieces import make_windows


def encoder_model(
    source: str,
    *,
    layers: int | None,
    vision: VisionModel | None,
    pictures: PictureTraining,
    segment_length: int,
    segment_grains: Sequence[str],
    max_length: int,
    stride: int,
    regression: float,
    encoder_lr_scale: float,
    module_settings: Settings,
) -> Model[list[Doc], FullTransformerBatch]:
    """The thinc model. It holds no torch module until `initialize` loads `source`, or
    `from_bytes` rebuilds what was saved. `vision` is its one layer, where it has one."""
    return Model(
        "prompted_transformer",
        functools.partial(_forward, training=pictures),
        init=_init,
        layers=[vision] if vision is not None else [],
        dims={"nO": None},
        shims=[TorchShim(build_module, {"encoder.": encoder_lr_scale})],
        attrs={
            "source": source,
            "layers": layers,
            "segment_length": segment_length,
            "segment_grains": list(segment_grains),
            "max_length": max_length,
            "stride": stride,
            "regression": regression,
            "module_settings": module_settings,
        },
    )


def build_module(
    settings: Settings, kind: type[PromptedEncoder] = PromptedEncoder
) -> PromptedEncoder:
    """A PromptedEncoder from its settings alone, weights still to be loaded."""
    tokenizer = tokenizer_of(settings["tokenizer"])
    return kind(build_from_config(settings["config"]), tokenizer, **settings["module"])


def torch_encoder(component: Any) -> PromptedEncoder | None:
    """A pipeline component's encoder, None where it has none that stands on torch's layers."""
    for shim in getattr(getattr(component, "model", None), "shims", ()):
        module = shim.module if isinstance(shim, TorchShim) else None
        if isinstance(module, PromptedEncoder) and module.layers is None:
            return module
    return None


def _init(model: Model, X: Any = None, Y: Any = None) -> None:
    shim = torch_shim(model)
    for vision in model.layers:
        vision.initialize()
    if shim.module is None:
        tokenizer, encoder = load_pretrained(model.attrs["source"])
        keep_layers(encoder, model.attrs["layers"])
        settings = dict(model.attrs["module_settings"])
        if model.layers:
            settings["patch_width"] = model.layers[0].get_dim("nO")
        shim.set_module(
            PromptedEncoder(encoder, tokenizer, **settings),
            {
                "config": encoder.config.to_dict(),
                "tokenizer": tokenizer_files(tokenizer),
                "module": settings,
            },
        )
    model.set_dim("nO", shim.module.width)


def _forward(
    model: Model, docs: Sequence[Doc], is_train: bool, training: PictureTraining
) -> tuple[FullTransformerBatch, Callable[[FullTransformerBatch], list[Doc]]]:
    shim = torch_shim(model)
    module: PromptedEncoder = shim.module
    if module is None:
        raise MMCoTError(Errors.E404.format(source=model.attrs["source"]))
    pictures = see(model.layers[0], docs, is_train, training) if model.layers else None
    rows, spans, lengths = _make_rows(model, module, docs)
    set_mode(module, is_train)
    with torch.set_grad_enabled(is_train):
        states, prompts, views = _run(module, rows, pictures, shim.device)
    output = PromptedBatch(
        spans=spans,
        wordpieces=_own_wordpieces(module, rows),
        model_output=BaseModelOutput(last_hidden_state=cast(Any, states.detach())),
        align=_align(rows, lengths, states.shape[1]),
        views=views,
        doc_windows=[len(windows) for windows in spans],
        token_pieces=lengths,
        grid=vision_grid(model.layers[0]) if model.layers else (0, 0),
    )
    extra = []
    if is_train:
        extra.append(_regression_loss(model, docs, rows, prompts))
        if pictures is not None and training.matching:
            loss = matching_loss(module, rows, pictures, shim.device)
            extra.append(training.matching * loss if loss is not None else None)

    def backprop(d_output: FullTransformerBatch) -> list[Doc]:
        (gradient,) = d_output.model_output.values()
        tensors, gradients = [states], [gradient.to(states.device)]
        for loss in extra:
            if loss is not None:
                tensors.append(loss)
                gradients.append(torch.ones_like(loss))
        torch.autograd.backward(tensors, gradients)
        if pictures is not None and pictures.patches.grad is not None:
            pictures.backprop(pictures.patches.grad)
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
        parts = [segment_parts(doc, model.attrs["segment_grains"]) for doc in docs]
        segments = pieces.joined_pieces(parts, segment_length)
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
        tags = knowledge_tags(doc).tolist() if module.tags is not None else None
        windows = make_windows(counts, budget, model.attrs["stride"])
        for window in windows:
            rows.append(make_row(pieces, words, window, segment, tags, index))
        spans.append([doc[window.own_start : window.own_end] for window in windows])
        lengths.append(counts)
    return rows, spans, lengths


def _run(
    module: PromptedEncoder, rows: list[Row], pictures: DocPictures | None, device: Any
) -> tuple[Tensor, Tensor | None, list[View | None]]:
    """The own states of all windows, (windows, most own pieces, width), zero-padded, the projected
    prompt states, (windows, length, width), and what the windows saw, all in the order of
    `rows`."""
    states: dict[int, Tensor] = {}
    prompts: dict[int, Tensor] = {}
    views: list[View | None] = [None] * len(rows)
    for group in groups(rows, module.packs):
        seen = None
        if pictures is not None:
            shown = torch.tensor([pictures.shown[rows[i].doc] for i in group], device=device)
            seen = PictureBatch(pictures.patches, shown)
        encoded = module(pad([rows[i] for i in group], module, device), seen)
        for position, i in enumerate(group):
            start, end = rows[i].own
            states[i] = encoded.states[position, start:end]
            if encoded.prompt is not None:
                prompts[i] = encoded.prompt[position]
        if encoded.attention is not None and not module.training:
            seen_by = zip(encoded.pictured, encoded.gate, encoded.attention, strict=True)
            for position, gate, attention in seen_by:
                start, end = rows[group[position]].own
                views[group[position]] = View(float(gate), attention[start:end])
    in_order = range(len(rows))
    padded = torch.nn.utils.rnn.pad_sequence([states[i] for i in in_order], batch_first=True)
    return padded, torch.stack([prompts[i] for i in in_order]) if prompts else None, views


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
