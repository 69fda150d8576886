"""PromptedEncoder as a thinc model, the architecture `spacy_mmcot.PromptedTransformer.v1`."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Optional, cast

import numpy
import torch
from spacy.tokens import Doc, Span
from spacy_transformers.data_classes import FullTransformerBatch, WordpieceBatch
from spacy_transformers.layers import split_trf_batch, trfs2arrays
from thinc.api import Model, chain
from thinc.types import Floats2d, Ragged
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from ..errors import Errors, MMCoTError
from .bridge import TorchShim, prepare_module, torch_shim
from .encoder import EncoderSettings, PictureBatch, PromptedEncoder
from .knowledge import get_segment_parts, tag_tokens
from .picture_input import (
    WORD_PIECES,
    DocPictures,
    PictureSettings,
    VisionModel,
    see_pictures,
)
from .prompts import PromptedBatch, PromptKind, View, compute_regression_loss
from .sources import build_from_config, keep_layers, load_pretrained, load_tokenizer, save_tokenizer
from .vision import get_patch_grid
from .wordpieces import Row, WordPieceTokenizer, group_by_length, make_rows

# No postponed annotations here: spaCy reads those of architectures at run time.

# Windows run in groups of similar length: most pieces of a group, padding included, and the least
# share of the longest window's length; the second share is for encoders that skip padding.
_MAX_GROUP_PIECES = 4096
_MIN_GROUP_FILL, _MIN_PACKED_FILL = 0.8, 0.3


def PromptedTransformer(
    source: str,
    prompt: PromptKind = "none",
    prompt_length: int = 4,
    prompt_regression: float = 0.0,
    knowledge_tags: bool = False,
    segment_length: int = 0,
    max_length: int = 512,
    stride: int = 64,
    embedding_dropout: float = 0.1,
    freeze_word_embeddings: bool = True,
    encoder_lr_scale: float = 0.3,
    vision: Optional[VisionModel] = None,  # noqa: UP045
    picture_dropout: float = 0.5,
    picture_swap: float = 0.15,
    picture_matching: float = 0.2,
    layers: Optional[int] = None,  # noqa: UP045
) -> Model[list[Doc], FullTransformerBatch]:
    """`spacy_mmcot.PromptedTransformer.v1`: an encoder for spaCy's stock `transformer` component.

    It returns one state for each word piece of the text, none for prompts, special pieces and the
    knowledge segment. Any listener of spacy-transformers can use it.

    source: a hub name, a folder, or `package:NAME`; read at `initialize` only.
    prompt: "none", "static" (learned vectors) or "conditional" (computed from the text).
    prompt_length: prompt vectors before the pieces.
    prompt_regression: weight of 1 - cosine between the prompt's last states and the knowledge
        targets that `teach` set on training docs; 0 for none.
    knowledge_tags: add embeddings of the `noun` answer's kinds, and of label and sureness of
        concluded entities, to the tokens of mentions.
    segment_length: most word pieces of the knowledge segment; 0 for no segment.
    max_length: most word pieces of a window, special pieces and segment included.
    stride: word pieces that neighbouring windows of a long doc share.
    embedding_dropout: dropout of the encoder's embeddings in training.
    freeze_word_embeddings: keep the pretrained word embeddings as they are.
    encoder_lr_scale: the pretrained weights' learning rate divided by that of new weights.
    vision: the model for the docs' pictures (`doc._.mmcot_image`), `spacy_mmcot.PackagedVision.v1`,
        `spacy_mmcot.HFVision.v1` or `spacy_mmcot.PictureText.v1`; None to ignore pictures.
    picture_dropout: how often training hides a doc's picture.
    picture_swap: how often training shows another picture in place of one that is not hidden.
    picture_matching: weight of learning which text and picture of a batch belong together.
    layers: how many of the encoder's layers to keep, counted from its input; None for all.

    Raises MMCoTError for picture settings out of range; `initialize` raises it for a number of
    layers that the encoder does not have.
    """
    settings = EncoderSettings(
        *(prompt, prompt_length, prompt_regression, knowledge_tags, segment_length),
        *(max_length, stride, embedding_dropout, freeze_word_embeddings),
        PictureSettings(picture_dropout, picture_swap, picture_matching),
    )
    return Model(
        "prompted_transformer",
        functools.partial(_forward, settings=settings),
        init=functools.partial(_init, settings=settings, source=source, n_layers=layers),
        layers=[vision] if vision is not None else [],
        dims={"nO": None},
        shims=[TorchShim(build_module, {"encoder.": encoder_lr_scale})],
        # What `Language.replace_listeners` asks for.
        attrs={"replace_listener": _split_by_doc, "replace_listener_cfg": _make_own_config},
    )


def PromptedTok2Vec(
    encoder: Model[list[Doc], FullTransformerBatch],
    pooling: Model[Ragged, Floats2d],
    grad_factor: float = 1.0,
) -> Model[list[Doc], list[Floats2d]]:
    """`spacy_mmcot.PromptedTok2Vec.v1`: an encoder of a component's own, with which
    `nlp.replace_listeners` replaces a listener.

    encoder: `spacy_mmcot.PromptedTransformer.v1`.
    pooling: from the states of a token's word pieces to one vector, such as `reduce_first.v1`.
    grad_factor: factor on the gradients that the encoder gets.
    """
    # As `replace_listeners` builds it: a saved model has the same layers.
    return chain(_split_by_doc(encoder), trfs2arrays(pooling, grad_factor))


def _split_by_doc(encoder: Model[list[Doc], FullTransformerBatch]) -> Model[Any, Any]:
    return chain(encoder, split_trf_batch())


def _make_own_config(encoder: dict[str, Any], listener: dict[str, Any]) -> dict[str, Any]:
    own = {"@architectures": "spacy_mmcot.PromptedTok2Vec.v1", "encoder": encoder}
    return own | {key: listener[key] for key in ("pooling", "grad_factor") if key in listener}


def build_module(
    config: dict[str, Any],
    tokenizer: dict[str, bytes],
    encoder: dict[str, Any],
    patch_width: int,
    word_pieces: int = 0,
) -> PromptedEncoder:
    """A PromptedEncoder from what `_init` keeps of it, weights still to be loaded."""
    pictures = PictureSettings(**encoder["pictures"])
    settings = EncoderSettings(**{**encoder, "pictures": pictures})
    built = build_from_config(config), load_tokenizer(tokenizer)
    return PromptedEncoder(*built, settings, patch_width, word_pieces)


def find_torch_encoder(component: Any) -> PromptedEncoder | None:
    """A pipeline component's encoder; None where it has none whose layers run in torch."""
    for shim in getattr(getattr(component, "model", None), "shims", ()):
        module = shim.module if isinstance(shim, TorchShim) else None
        if isinstance(module, PromptedEncoder) and module.layers is None:
            return module
    return None


def _init(
    model: Model,
    X: Any = None,
    Y: Any = None,
    *,
    settings: EncoderSettings,
    source: str,
    n_layers: int | None,
) -> None:
    shim = torch_shim(model)
    for vision in model.layers:
        vision.initialize()
    if shim.module is None:
        tokenizer, encoder = load_pretrained(source)
        keep_layers(encoder, n_layers)
        patch_width = model.layers[0].get_dim("nO") if model.layers else 0
        word_pieces = model.layers[0].attrs.get(WORD_PIECES, 0) if model.layers else 0
        widths = {"patch_width": patch_width, "word_pieces": word_pieces}
        kept = {
            "config": encoder.config.to_dict(),
            "tokenizer": save_tokenizer(tokenizer),
            "encoder": dataclasses.asdict(settings),
            **widths,
        }
        shim.set_module(PromptedEncoder(encoder, tokenizer, settings, **widths), kept)
    model.set_dim("nO", shim.module.width)


def _forward(
    model: Model, docs: Sequence[Doc], is_train: bool, *, settings: EncoderSettings
) -> tuple[FullTransformerBatch, Callable[[FullTransformerBatch], list[Doc]]]:
    module: PromptedEncoder | None = prepare_module(model, is_train)
    if module is None:
        raise MMCoTError(Errors.E602.format(component="The encoder"))
    vision = model.layers[0] if model.layers else None
    pictures = see_pictures(vision, docs, is_train, settings.pictures) if vision else None
    shown = None if pictures is None else _make_picture_batch(module, pictures)
    rows = _make_rows(module, docs, settings)
    with torch.set_grad_enabled(is_train):
        states, prompts, views = _run(module, rows, shown)
        losses: list[Tensor] = []
        if is_train and prompts:
            regression = compute_regression_loss(prompts, [docs[row.doc] for row in rows])
            if regression is not None:
                losses.append(settings.prompt_regression * regression)
        weight = settings.pictures.matching
        if is_train and weight and pictures is not None and shown is not None:
            matching = _compute_matching_losses(module, rows, pictures, shown)
            losses += [weight * loss for loss in matching]
    wordpieces = _make_wordpieces(module.pieces, rows)
    # Each token's pieces are places in the flattened grid of states.
    places = numpy.flatnonzero(cast(Any, wordpieces.attention_mask)).astype("int32")
    counts = numpy.array([count for row in rows for count in row.counts], dtype="int32")
    spans: list[list[Span]] = [[] for _ in docs]
    for row in rows:
        spans[row.doc].append(docs[row.doc][slice(*row.own_tokens)])
    output = PromptedBatch(
        spans=spans,
        wordpieces=wordpieces,
        model_output=BaseModelOutput(last_hidden_state=cast(Any, states.detach())),
        align=Ragged(cast(Any, places), cast(Any, counts)),
        views=views,
        grid=get_patch_grid(vision) if vision is not None else (0, 0),
    )

    def backprop(d_output: FullTransformerBatch) -> list[Doc]:
        (gradient,) = d_output.model_output.values()
        ones = [torch.ones_like(loss) for loss in losses]
        torch.autograd.backward([states, *losses], [gradient.to(states.device), *ones])
        if pictures is not None and pictures.patches.grad is not None:
            pictures.backprop(pictures.patches.grad)
        return list(docs)

    return output, backprop


def _make_rows(
    module: PromptedEncoder, docs: Sequence[Doc], settings: EncoderSettings
) -> list[Row]:
    """The windows of all Docs."""
    segments: list[list[int]] = [[] for _ in docs]
    if settings.segment_length:
        parts = [get_segment_parts(doc) for doc in docs]
        segments = module.pieces.split_joined(parts, settings.segment_length)
    most, stride = min(settings.max_length, module.max_pieces), settings.stride
    rows: list[Row] = []
    for index, (doc, segment) in enumerate(zip(docs, segments, strict=True)):
        tags = tag_tokens(doc) if module.tags is not None else None
        rows += make_rows(
            module.pieces, doc, index, most=most, stride=stride, segment=segment, tags=tags
        )
    return rows


def _run(
    module: PromptedEncoder, rows: Sequence[Row], pictures: PictureBatch | None
) -> tuple[Tensor, list[Tensor], list[View | None]]:
    """The own states of all windows, (windows, most own pieces, width), zero-padded; the projected
    prompt states, (length, width) a window, empty without a regression; and the windows' attention
    to their pictures. All in the order of `rows`.

    pictures: its rows are those of the Docs."""
    states: dict[int, Tensor] = {}
    prompts: dict[int, Tensor] = {}
    views: list[View | None] = [None] * len(rows)
    fill = _MIN_PACKED_FILL if module.packs else _MIN_GROUP_FILL
    for group in group_by_length([len(row.ids) for row in rows], _MAX_GROUP_PIECES, fill):
        batch = module.pad_rows([rows[i] for i in group])
        shown = None
        if pictures is not None:
            shown = pictures._replace(rows=pictures.rows[[rows[i].doc for i in group]])
        encoded = module(batch, shown)
        for position, i in enumerate(group):
            states[i] = encoded.states[position, slice(*rows[i].own)]
            if encoded.prompt is not None:
                prompts[i] = encoded.prompt[position]
        if encoded.seen is not None and not module.training:
            for position, gate, attention in zip(*encoded[2:], strict=True):
                i = group[position]
                views[i] = float(gate), attention[slice(*rows[i].own)]
    in_order = range(len(rows))
    padded = torch.nn.utils.rnn.pad_sequence([states[i] for i in in_order], batch_first=True)
    return padded, [prompts[i] for i in in_order] if prompts else [], views


def _make_picture_batch(module: PromptedEncoder, pictures: DocPictures) -> PictureBatch:
    """The pictures with the word pieces of their texts; its rows are those of the Docs."""
    limit = module.shown_words.length if module.shown_words is not None else 0
    pieces = module.pieces.split_joined([[text] for text in pictures.texts], limit)
    rows = [torch.tensor(row, dtype=torch.int64) for row in pieces]
    words, mask = (
        torch.nn.utils.rnn.pad_sequence(each, batch_first=True).to(module.device)
        for each in (rows, [torch.ones_like(row) for row in rows])
    )
    return PictureBatch(
        pictures.patches, words, mask, torch.tensor(pictures.shown, device=module.device)
    )


def _compute_matching_losses(
    module: PromptedEncoder,
    rows: Sequence[Row],
    pictures: DocPictures,
    shown: PictureBatch,
) -> list[Tensor]:
    """The losses of telling which texts and pictures belong together, by the pictures' patches and
    by their words, where the encoder reads these and there are two of them."""
    # Of a long Doc the first window counts.
    first = {row.doc: row for row in reversed(rows) if pictures.own[row.doc] >= 0}
    own = [pictures.own[doc] for doc in first]
    batch = module.pad_rows(list(first.values()))
    embeddings = module.word_embeddings(batch.ids)
    losses = []
    if module.visual is not None and len(shown.patches) > 1:
        index = torch.tensor(own, device=module.device)
        visual = module.visual
        losses.append(visual.compute_matching_loss(embeddings, batch.text, shown.patches, index))
    # Pictures with the same words count as one, those without words not at all.
    known = {text: i for i, text in enumerate(pictures.texts) if text}
    if module.shown_words is not None and len(known) > 1:
        order = {text: i for i, text in enumerate(known)}
        chosen = list(known.values())
        kept = [i for i, picture in enumerate(own) if pictures.texts[picture]]
        index = torch.tensor([order[pictures.texts[own[i]]] for i in kept], device=module.device)
        loss = module.shown_words.compute_matching_loss(
            *(embeddings[kept], batch.text[kept]),
            *(module.word_embeddings(shown.words[chosen]), shown.words_mask[chosen]),
            index,
        )
        losses.append(loss)
    return losses


def _make_wordpieces(pieces: WordPieceTokenizer, rows: Sequence[Row]) -> WordpieceBatch:
    """The windows' own pieces, (windows, most own pieces), padded as the states are."""
    own = [row.ids[slice(*row.own)] for row in rows]
    lengths = [len(row) for row in own]
    mask = numpy.arange(max(lengths)) < numpy.array(lengths)[:, None]
    ids = numpy.full(mask.shape, pieces.pad_id, dtype="int64")
    ids[mask] = list(itertools.chain.from_iterable(own))
    return WordpieceBatch(
        strings=[pieces.tokenizer.convert_ids_to_tokens(row) for row in ids.tolist()],
        input_ids=cast(Any, ids),
        attention_mask=cast(Any, mask.astype("float32")),
        lengths=lengths,
        token_type_ids=None,
    )
