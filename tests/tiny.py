"""Encoders small enough to train in a test: two layers, sixteen wide, random weights, each with
a tokenizer of its family's own kind that learned its pieces from a few sentences."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import spacy
import torch
from spacy import registry
from spacy.language import Language
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModel,
    BertTokenizerFast,
    DebertaV2TokenizerFast,
    DistilBertTokenizerFast,
    ElectraTokenizerFast,
    MPNetTokenizerFast,
    PretrainedConfig,
    RobertaTokenizerFast,
)

from spacy_mmcot.model.bridge import torch_shim
from spacy_mmcot.model.encoder import PromptedEncoder
from spacy_mmcot.model.encoder_bridge import PromptedTransformer
from spacy_mmcot.model.picture_input import VisionModel
from spacy_mmcot.model.vision import make_vision_model
from spacy_mmcot.pictures.read import PicturePolicy

WIDTH = 16

SENTENCES = [
    "Anna Berg sings in Oslo tonight with the Northern Lights band.",
    "Is Oslo colder than Lagos? Ben Okri moved there in March.",
    "The Harbour Museum opens a new hall for Ada Moen's paintings!",
    "Lagos United beat Oslo City 3-1 at the Harbour Arena #football @LagosUnited",
    "We saw the film 'Winter Ferry' at the festival; the director came along.",
    "Tickets, drinks and a long walk home: what a night in the old town.",
]

_ENCODER = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    # Large enough that every word, position and prompt shows in the last layer.
    "initializer_range": 0.25,
}


BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _parts(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What the sentences' words are made of, (piece, how its word goes on): every other word whole,
    the rest in two halves. The trainers of pieces decide ties by chance, differently each time."""
    for number, word in enumerate(sorted(set(words))):
        middle = len(word) if number % 2 else (len(word) + 1) // 2
        yield word[:middle], word[middle:]


def _wordpiece(tokenizer_class: Any, special: Sequence[str] = BERT_SPECIAL) -> Any:
    letters = sorted(set("".join(SENTENCES).lower()) - {" "})
    parts = list(_parts(re.findall(r"\w+", " ".join(SENTENCES).lower())))
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    pieces += [piece for piece, _ in parts] + [f"##{rest}" for _, rest in parts if rest]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = _template(backend, special)
    return tokenizer_class(tokenizer_object=backend)


def _byte_bpe() -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=476,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    begin, end = backend.token_to_id("<s>"), backend.token_to_id("</s>")
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", end), ("<s>", begin), add_prefix_space=False
    )
    return RobertaTokenizerFast(tokenizer_object=backend)


def _unigram() -> Any:
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    letters = sorted(set("".join(SENTENCES)) - {" "})
    parts = list(_parts(f"▁{word}" for word in " ".join(SENTENCES).split()))
    # Log probabilities: a word of few long pieces is likelier than one of letters.
    scores = {**dict.fromkeys(special, 0.0), **dict.fromkeys(["▁", *letters], -8.0)}
    for piece, rest in parts:
        scores |= {name: -4.0 for name in (piece, rest) if len(name) > 1}
    backend = Tokenizer(models.Unigram(list(scores.items()), special.index("[UNK]")))
    backend.normalizer = normalizers.Replace(" {2,}", " ")
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = _template(backend, special)
    return DebertaV2TokenizerFast(tokenizer_object=backend)


def _template(backend: Tokenizer, special: Sequence[str]) -> processors.TemplateProcessing:
    begin, end = ("[CLS]", "[SEP]") if "[CLS]" in special else ("<s>", "</s>")
    between = end if begin == "[CLS]" else f"{end} {end}"
    return processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {between} $B:1 {end}:1",
        special_tokens=[(name, backend.token_to_id(name)) for name in (begin, end)],
    )


def _bert() -> tuple[Any, PretrainedConfig]:
    tokenizer = _wordpiece(BertTokenizerFast)
    return tokenizer, AutoConfig.for_model("bert", vocab_size=len(tokenizer), **_ENCODER)


def _roberta() -> tuple[Any, PretrainedConfig]:
    tokenizer = _byte_bpe()
    config = AutoConfig.for_model(
        "roberta",
        vocab_size=len(tokenizer),
        # Positions start behind the padding id, so 514 of them leave room for 512 pieces.
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        **_ENCODER,
    )
    return tokenizer, config


def _deberta_v2() -> tuple[Any, PretrainedConfig]:
    tokenizer = _unigram()
    config = AutoConfig.for_model(
        "deberta-v2",
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        type_vocab_size=0,
        relative_attention=True,
        position_biased_input=False,
        position_buckets=32,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        pad_token_id=tokenizer.pad_token_id,
        **_ENCODER,
    )
    return tokenizer, config


def _distilbert() -> tuple[Any, PretrainedConfig]:
    tokenizer = _wordpiece(DistilBertTokenizerFast)
    config = AutoConfig.for_model(
        "distilbert",
        vocab_size=len(tokenizer),
        n_layers=2,
        n_heads=2,
        dim=WIDTH,
        hidden_dim=32,
        initializer_range=_ENCODER["initializer_range"],
    )
    return tokenizer, config


def _electra() -> tuple[Any, PretrainedConfig]:
    tokenizer = _wordpiece(ElectraTokenizerFast)
    config = AutoConfig.for_model(
        "electra", vocab_size=len(tokenizer), embedding_size=WIDTH // 2, **_ENCODER
    )
    return tokenizer, config


def _mpnet() -> tuple[Any, PretrainedConfig]:
    tokenizer = _wordpiece(MPNetTokenizerFast, ("<s>", "<pad>", "</s>", "[UNK]", "<mask>"))
    # Positions start behind the padding id, as in RoBERTa.
    config = AutoConfig.for_model(
        "mpnet",
        vocab_size=len(tokenizer),
        max_position_embeddings=514,
        pad_token_id=tokenizer.pad_token_id,
        **_ENCODER,
    )
    return tokenizer, config


FAMILIES: dict[str, Callable[[], tuple[Any, PretrainedConfig]]] = {
    "bert": _bert,
    "roberta": _roberta,
    "deberta-v2": _deberta_v2,
    "distilbert": _distilbert,
    "electra": _electra,
    "mpnet": _mpnet,
}


def save_encoder(family: str, folder: Path) -> None:
    """Write an encoder of the family and its tokenizer to a folder, as save_pretrained does."""
    tokenizer, config = FAMILIES[family]()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = AutoModel.from_config(config)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pipeline(source: str, **settings: Any) -> Language:
    """A pipeline of nothing but our encoder, initialised; its knowledge tags, which start at
    zero, made to show."""
    nlp = spacy.blank("en")
    architecture = {"@architectures": "spacy_mmcot.PromptedTransformer.v1", "source": source}
    nlp.add_pipe("transformer", config={"model": {**architecture, **settings}})
    nlp.initialize()
    tags = module_of(nlp).tags
    if tags is not None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            # Row 0 stands for no tag and stays zero.
            torch.nn.init.normal_(tags.weight[1:])
    return nlp


def module_of(nlp: Language) -> PromptedEncoder:
    return torch_shim(nlp.get_pipe("transformer").model).module  # type: ignore[attr-defined]


def build(source: str, **settings: Any) -> PromptedEncoder:
    """The architecture's module alone, with its settings."""
    model = PromptedTransformer(source, **settings)
    model.initialize()
    return torch_shim(model).module


class Quarters(torch.nn.Module):
    """A vision model that sees four squares of 16 pixels, and learns what to see."""

    size, width, grid = 32, WIDTH, (2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.cut = torch.nn.Conv2d(3, WIDTH, 16, stride=16)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (pictures, 3, 32, 32), bytes. Returns (pictures, 4, WIDTH)."""
        return self.cut(pixels.float() / 127.5 - 1).flatten(2).transpose(1, 2)


@registry.architectures("tiny.Vision.v1")
def make_vision(pictures: PicturePolicy | None = None) -> VisionModel:
    return make_vision_model(
        "tiny_vision",
        load=lambda: (Quarters(), {}),
        build=Quarters,
        policy=pictures or PicturePolicy(),
        memory_mb=10.0,
    )


VISION = {"@architectures": "tiny.Vision.v1"}
