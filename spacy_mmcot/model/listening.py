"""Components that read an encoder's states from the Docs, where another component puts them."""

from __future__ import annotations

from collections.abc import Iterable

from spacy.tokens import Doc
from spacy_transformers.layers import TransformerListener
from thinc.api import Model

from ..errors import Errors, MMCoTError


def check_states(model: Model, docs: Iterable[Doc], component: str) -> None:
    """Raise MMCoTError if the model listens to a transformer that has not run over the Docs:
    spacy-transformers would hand on zeros, and the predictions would be noise."""
    if any(isinstance(node, TransformerListener) for node in model.walk()):
        for doc in docs:
            if len(doc) and doc._.trf_data is None:
                raise MMCoTError(Errors.E405.format(component=component, text=doc.text[:60]))
