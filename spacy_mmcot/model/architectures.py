"""The registered architectures: what a config may ask for."""

from typing import Optional

from spacy.ml.featureextractor import FeatureExtractor
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch
from spacy_transformers.layers.split_trf import split_trf_batch
from spacy_transformers.layers.trfs2arrays import trfs2arrays
from thinc.api import (
    HashEmbed,
    Maxout,
    Model,
    chain,
    concatenate,
    list2ragged,
    ragged2list,
    reduce_first,
    with_array,
)
from thinc.types import Floats2d, Ragged

from ..errors import Errors, MMCoTError
from .cnn import piece_vectors
from .encoder import PromptKind
from .encoder_bridge import encoder_model
from .encoder_rows import PictureTraining
from .knowledge import SEGMENT_GRAINS
from .pair_classifier import Context, DocPairs, pair_model
from .tagger import TagScores, tagger_model
from .vision import VisionModel


def PromptedTransformer(
    source: str,
    prompt: PromptKind = "none",
    prompt_length: int = 4,
    prompt_hidden: int = 128,
    prompt_regression: float = 0.0,
    knowledge_tags: bool = False,
    segment_length: int = 0,
    max_length: int = 512,
    stride: int = 64,
    embedding_dropout: float = 0.1,
    freeze_word_embeddings: bool = True,
    encoder_lr_scale: float = 0.3,
    vision: Optional[VisionModel] = None,  # noqa: UP045
    visual_prompts: int = 4,
    picture_dropout: float = 0.5,
    picture_swap: float = 0.15,
    picture_matching: float = 0.2,
    segment_grains: Optional[list[str]] = None,  # noqa: UP045
    layers: Optional[int] = None,  # noqa: UP045
) -> Model[list[Doc], FullTransformerBatch]:
    """`spacy_mmcot.PromptedTransformer.v1`: an encoder for spaCy's stock `transformer` component.

    It hands on one state a word piece of the text; prompts, special pieces and the knowledge
    segment stay inside. Any listener of spacy-transformers can stand on it.

    source: a hub name, a folder, or `package:NAME`; read at `initialize` only.
    prompt: "none", "static" (learned vectors) or "conditional" (computed from the text).
    prompt_length: how many vectors stand before the pieces.
    prompt_hidden: units in the conditional prompt's bottleneck.
    prompt_regression: weight of 1 - cosine between the prompt's last-layer states and the
        knowledge targets that `teach` put on training docs; 0 switches it off.
    knowledge_tags: add an embedding of the `noun` answer's kinds to the tokens they are found on.
    segment_length: most word pieces of the knowledge segment; 0 for no segment.
    max_length: most word pieces of a window, special pieces and segment included.
    stride: word pieces that neighbouring windows of a long doc share.
    embedding_dropout: dropout of the encoder's embeddings in training.
    freeze_word_embeddings: keep the pretrained word embeddings as they are.
    encoder_lr_scale: the pretrained weights' learning rate over that of new weights.
    vision: what sees the docs' pictures (`doc._.mmcot_image`), `spacy_mmcot.ConvVision.v1` or
        `spacy_mmcot.HFVision.v1`; None reads none.
    visual_prompts: how many vectors stand before the pieces where a doc has a picture.
    picture_dropout: how often training hides a doc's picture, so that one model serves with and
        without.
    picture_swap: how often training shows a doc, of those that keep theirs, another's picture, so
        that the gate learns to close.
    picture_matching: weight of learning which text and picture of a batch belong together.
    segment_grains: what the segment holds, of "caption", "sentence" and "multimodality"; None for
        all that a doc has.
    layers: how many of the encoder's layers to keep, counted from its input; None for all.

    Raises MMCoTError for another name among the segment's grains; `initialize` does for a number
    of layers that the encoder does not have.
    """
    grains = SEGMENT_GRAINS if segment_grains is None else segment_grains
    if unknown := [grain for grain in grains if grain not in SEGMENT_GRAINS]:
        raise MMCoTError(
            Errors.E409.format(
                name="In segment_grains of spacy_mmcot.PromptedTransformer.v1 a grain",
                received=repr(unknown[0]),
                allowed=", ".join(SEGMENT_GRAINS),
            )
        )
    return encoder_model(
        source,
        layers=layers,
        vision=vision,
        pictures=PictureTraining(picture_dropout, picture_swap, picture_matching),
        segment_length=segment_length,
        segment_grains=grains,
        max_length=max_length,
        stride=stride,
        regression=prompt_regression,
        encoder_lr_scale=encoder_lr_scale,
        module_settings={
            "prompt": prompt,
            "prompt_length": prompt_length,
            "prompt_hidden": prompt_hidden,
            "knowledge_tags": knowledge_tags,
            "regression": prompt_regression > 0,
            "embedding_dropout": embedding_dropout,
            "freeze_word_embeddings": freeze_word_embeddings,
            "visual_prompts": visual_prompts if vision is not None else 0,
        },
    )


def Tagger(
    tok2vec: Model[list[Doc], list[Floats2d]],
    dropout: float = 0.2,
    crf: bool = True,
) -> Model[list[Doc], TagScores]:
    """`spacy_mmcot.Tagger.v1`: BIO tag scores of each token for `mmcot_ner`.

    tok2vec: token vectors, usually `spacy-transformers.TransformerListener.v1` with
        `reduce_first.v1` pooling, or any other tok2vec.
    dropout: dropout of the token vectors in training.
    crf: learn transition scores (a conditional random field); without, a softmax a token. Either
        way decoding never yields an illegal sequence.
    """
    return tagger_model(tok2vec, dropout=dropout, learn_transitions=crf)


def PairClassifier(
    tok2vec: Model[list[Doc], list[Floats2d]],
    knowledge: Optional[Model[list[Doc], list[Floats2d]]] = None,  # noqa: UP045
    context: Context = "between",
    hidden: int = 256,
    dropout: float = 0.2,
    view_dropout: float = 0.0,
    conclusions: bool = False,
) -> Model[list[DocPairs], list[Floats2d]]:
    """`spacy_mmcot.PairClassifier.v1`: relation logits of mention pairs for `mmcot_rel`.

    tok2vec: token vectors, usually `spacy-transformers.TransformerListener.v1`: one encoder pass
        serves the tagger and all pairs.
    knowledge: for a teacher, a second encoder (`spacy_mmcot.KnowledgeReader.v1`) that reads what
        the LLM said about the doc, where the same pairs are looked up; None reads none.
    context: what a pair sees beside its mentions and the mean of the doc: "between", the mean of
        the tokens between them, or "attention", a mean over the doc by a query of the pair.
    hidden: units of the classifier's hidden layer.
    dropout: dropout of the token vectors and the hidden layer in training.
    view_dropout: with `knowledge`, how often a pair is trained without its text, and as often
        without its knowledge: at most 0.5. What fits the text by heart would not learn to read.
    """
    return pair_model(
        tok2vec,
        knowledge=knowledge,
        settings={
            **{"context": context, "hidden": hidden, "dropout": dropout},
            "view_dropout": view_dropout,
            "conclusions": conclusions,
        },
    )


def PieceEmbed(
    width: int,
    attrs: list[str],
    rows: list[int],
    source: str,
    table_width: int = 128,
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
        raise MMCoTError(
            Errors.E409.format(
                name="rows of spacy_mmcot.PieceEmbed.v1",
                received=rows,
                allowed=f"one number for each of attrs, {attrs}",
            )
        )
    hashes: list[Model] = [
        HashEmbed(width, n, column=column, seed=column) for column, n in enumerate(rows)
    ]
    hashed: Model = chain(FeatureExtractor(attrs), list2ragged(), with_array(concatenate(*hashes)))
    pieces = piece_vectors(source, table_width=table_width, width=width)
    mix: Model[Floats2d, Floats2d] = Maxout(width, width * (len(rows) + 1), nP=3, normalize=True)
    return chain(concatenate(hashed, pieces), with_array(mix), ragged2list())


def KnowledgeReader(
    source: str,
    max_length: int = 128,
    embedding_dropout: float = 0.1,
    freeze_word_embeddings: bool = True,
    encoder_lr_scale: float = 0.3,
) -> Model[list[Doc], list[Floats2d]]:
    """`spacy_mmcot.KnowledgeReader.v1`: token vectors of knowledge texts, from an encoder of
    their own. Arguments as for `PromptedTransformer`."""
    encoder = PromptedTransformer(
        source,
        max_length=max_length,
        stride=max_length // 4,
        embedding_dropout=embedding_dropout,
        freeze_word_embeddings=freeze_word_embeddings,
        encoder_lr_scale=encoder_lr_scale,
    )
    pooling: Model[Ragged, Floats2d] = reduce_first()
    return chain(chain(encoder, split_trf_batch()), trfs2arrays(pooling, 1.0))
