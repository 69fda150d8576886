"""What a pipeline's speed is measured against: its own encoder by itself, and spaCy's stock
components on that encoder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from ..model.encoder_bridge import torch_encoder
from ..model.prompted_encoder import PromptedEncoder

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


def encoder_of(nlp: Language) -> PromptedEncoder | None:
    """The torch encoder of a pipeline, None where it has none with layers of its own."""
    found = (torch_encoder(component) for _, component in nlp.pipeline)
    return next((module for module in found if module is not None), None)


def entity_labels(nlp: Language) -> Sequence[str]:
    """The labels of the first component that has some."""
    named = (getattr(component, "labels", ()) for _, component in nlp.pipeline)
    return next(filter(None, named), ("ENTITY",))


def bare_encoder(module: PromptedEncoder, docs: Iterable[Doc], parts: int) -> Callable[[int], None]:
    """Runs the encoder over the Docs' word pieces, in `parts` that together are all of them:
    sorted by length over all Docs, tokenized and padded beforehand. What no pipeline on this
    encoder can be expected to beat."""
    pieces = module.pieces
    limit = module.max_pieces - pieces.n_special
    rows: list[list[int]] = []
    for doc in docs:
        flat = [piece for word in pieces.pieces(doc, limit) for piece in word]
        for start in range(0, len(flat), limit):
            rows.append([*pieces.prefix, *flat[start : start + limit], *pieces.suffix])
    rows.sort(key=len)
    padding = pieces.tokenizer.pad_token_id or 0
    batches = [
        _padded(rows[i : i + LIMIT_BATCH], padding) for i in range(0, len(rows), LIMIT_BATCH)
    ]

    def run(number: int) -> None:
        module.eval()
        with torch.inference_mode():
            for ids, mask in batches[number::parts]:
                module.encoder(input_ids=ids, attention_mask=mask)

    return run


def _padded(rows: Sequence[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = [torch.tensor(row) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=padding)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()


def stock_pipeline(nlp: Language, module: PromptedEncoder) -> Language:
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
            for label in entity_labels(nlp)
        ]
        stock.initialize(lambda: examples)
    return stock
