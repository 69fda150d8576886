"""For students without a transformer: token vectors from an encoder's word embeddings."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from spacy.tokens import Doc
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d, Ragged
from torch import Tensor, nn

from ..errors import Errors, MMCoTError
from .bridge import Settings, TorchShim, prepare_module, torch_shim
from .sources import load_pretrained, load_tokenizer, save_tokenizer
from .wordpieces import WordPieceTokenizer, make_embed

# No postponed annotations here: spaCy reads those of architectures at run time.


class PieceVectors(nn.Module):
    """A token's vector is the mean of its word pieces' rows in a frozen table, through one linear
    layer. No token is unknown: every word has pieces."""

    table: Tensor

    def __init__(self, tokenizer: dict[str, bytes], pieces: int, table_width: int, width: int):
        super().__init__()
        self.pieces = WordPieceTokenizer(load_tokenizer(tokenizer))
        # Half precision halves the file; the rows are inputs that never change.
        self.register_buffer("table", torch.zeros(pieces, table_width, dtype=torch.float16))
        self.linear = nn.Linear(table_width, width)

    def forward(self, ids: Tensor, counts: Tensor) -> Tensor:
        """ids: (pieces,), the pieces of one token after another. counts: (tokens,), how many each
        token has, at least 1. Returns (tokens, width)."""
        owner = torch.repeat_interleave(counts)
        rows = self.table.index_select(0, ids).float()
        sums = rows.new_zeros(len(counts), rows.shape[1]).index_add(0, owner, rows)
        return self.linear(sums / counts.unsqueeze(1))


def compute_principal_rows(table: Tensor, width: int) -> Tensor:
    """The rows of a table, (rows, columns), on its first `width` principal components, scaled to a
    standard deviation of 1 over all; (rows, width), or (rows, columns) if that is less."""
    centred = table - table.mean(0)
    _, components = torch.linalg.eigh(centred.T @ centred)
    rows = centred @ components.flip(1)[:, :width]
    return rows / rows.std()


# The first pieces of an overlong token, such as a URL, suffice.
MAX_PIECES = 16


def PieceEmbed(
    width: int, attrs: list[str], rows: list[int], source: str, table_width: int = 128
) -> Model[list[Doc], list[Floats2d]]:
    """`spacy_mmcot.PieceEmbed.v1`: for a student without a transformer. Token vectors of hashed
    attributes, as of `spacy.MultiHashEmbed.v2`, and of the token's word pieces in an encoder's
    word embeddings, which stay frozen. Each part is as wide as the output.

    attrs: token attributes, such as NORM, PREFIX, SUFFIX and SHAPE.
    rows: the rows of each attribute's hash table.
    source: as for `PromptedTransformer`; read at `initialize` only.
    table_width: principal components of the word embeddings to keep.

    Raises MMCoTError where there are not as many rows as attrs.
    """
    if len(rows) != len(attrs):
        allowed = f"one number for each of attrs, {attrs}"
        name = "rows of spacy_mmcot.PieceEmbed.v1"
        raise MMCoTError(Errors.E409.format(name=name, received=rows, allowed=allowed))
    pieces = make_piece_vectors(source, table_width=table_width, width=width)
    return make_embed(width, attrs, rows, pieces)


def make_piece_vectors(source: str, *, table_width: int, width: int) -> Model[list[Doc], Ragged]:
    """The thinc model, which returns one vector a token, (tokens, width), of all Docs."""
    init = functools.partial(_init, source=source, table_width=table_width)
    shim = TorchShim(PieceVectors)
    return Model("piece_vectors", _forward, init=init, dims={"nO": width}, shims=[shim])


def _init(model: Model, X: Any = None, Y: Any = None, *, source: str, table_width: int) -> None:
    shim = torch_shim(model)
    if shim.module is not None:
        return
    tokenizer, encoder = load_pretrained(source)
    table = encoder.get_input_embeddings().weight.detach()
    rows = compute_principal_rows(table, table_width)
    settings: Settings = {
        "tokenizer": save_tokenizer(tokenizer),
        "pieces": rows.shape[0],
        "table_width": rows.shape[1],
        "width": model.get_dim("nO"),
    }
    module = PieceVectors(**settings)
    module.table.copy_(rows)
    shim.set_module(module, settings)


def _forward(
    model: Model, docs: Sequence[Doc], is_train: bool
) -> tuple[Ragged, Callable[[Ragged], list[Doc]]]:
    module: PieceVectors = prepare_module(model, is_train)
    device = torch_shim(model).device
    words = [word for doc in docs for word in module.pieces.split_doc(doc, MAX_PIECES)]
    ids = torch.tensor(list(itertools.chain.from_iterable(words)), dtype=torch.long)
    counts = torch.tensor([len(word) for word in words], dtype=torch.long)
    with torch.set_grad_enabled(is_train):
        vectors = module(ids.to(device), counts.to(device))
    lengths = model.ops.asarray1i([len(doc) for doc in docs])

    def backprop(gradient: Ragged) -> list[Doc]:
        vectors.backward(xp2torch(gradient.data))
        return []

    return Ragged(torch2xp(vectors.detach()), lengths), backprop
