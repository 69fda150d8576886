"""Matrix products by numpy instead of by the BLIS that thinc brings along.

A CNN spends nearly all its time in them, and on processors that BLIS has no kernel for it falls
back to a general one: numpy's own library was three times as fast where this was measured
(docs/LADDER.md).
"""

from __future__ import annotations

from collections.abc import Callable

from spacy.language import Language
from thinc.api import NumpyOps, Ops
from thinc.types import Floats2d


class NumpyProducts(NumpyOps):
    """NumpyOps in all but how matrices are multiplied."""

    def gemm(
        self,
        x: Floats2d,
        y: Floats2d,
        out: Floats2d | None = None,
        trans1: bool = False,
        trans2: bool = False,
    ) -> Floats2d:
        return Ops.gemm(self, x, y, out=out, trans1=trans1, trans2=trans2)


def numpy_products() -> Callable[[Language], Language]:
    """`spacy_mmcot.NumpyProducts.v1`: a callback for `[nlp.after_pipeline_creation]`, so that it
    holds in training and for every pipeline that is loaded. Layers on a GPU or on another CPU
    backend, such as Apple's, stay as they are."""

    def change(nlp: Language) -> Language:
        ops = NumpyProducts()
        for _, pipe in nlp.pipeline:
            for node in pipe.model.walk() if hasattr(pipe, "model") else ():
                if type(node.ops) is NumpyOps:
                    node.ops = ops
        return nlp

    return change
