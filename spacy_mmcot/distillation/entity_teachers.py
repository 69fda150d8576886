"""Any pipeline that finds entities, or a GLiNER model, as a teacher. A table maps its labels to the
user's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import filter_spans
from spacy.vocab import Vocab

from ..corpus.extensions import register_extensions
from ..errors import Errors, MMCoTError
from ..messages import first_line, shown
from ..model.knowledge import make_tag_probabilities
from ..scheme import read_yaml
from .soft_labels import SoftTags, list_tags

GLINER_PREFIX = "gliner:"
# P(right) of an entity whose pipeline gives no score.
DEFAULT_SCORE = 0.95
# GLiNER's own default of 0.5 is for final answers; a soft label may say that an entity is possible.
_GLINER_THRESHOLD = 0.3
# The key of `doc.spans` for entities of GLiNER that overlap others.
_OVERLAPPING = "mmcot_overlapping"


class GlinerTeacher:
    """A GLiNER model that is asked for the entities of given labels. Long Docs are read in windows.

    source: name on the hub, or folder. labels: as GLiNER is asked, such as "sports team".

    Raises MMCoTError where gliner is not installed, or the model cannot be loaded.
    """

    def __init__(self, source: str, labels: Iterable[str]):
        try:
            from gliner import GLiNER

            self._model = GLiNER.from_pretrained(source)
        except ImportError:
            raise MMCoTError(Errors.E511.format(source=source)) from None
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = first_line(error)
            raise MMCoTError(Errors.E512.format(source=source, reason=reason)) from error
        register_extensions()
        self.vocab = Vocab()
        self._labels = list(labels)
        # A token of spaCy may be several words of GLiNER, which ignores those above max_len.
        self._window = max(1, self._model.config.max_len // 2)

    def pipe(self, docs: Iterable[Doc]) -> Iterator[Doc]:
        """Set each Doc's entities and their `span._.mmcot_score`; those that overlap others go to
        `doc.spans`. All Docs are one batch."""
        docs, size = list(docs), self._window
        windows = [doc[i : i + size] for doc in docs for i in range(0, len(doc), size)]
        windows = [window for window in windows if window.text.strip()]
        texts = [window.text for window in windows]
        found = texts and self._model.inference(texts, self._labels, threshold=_GLINER_THRESHOLD)
        spans: dict[Doc, list[Span]] = {doc: [] for doc in docs}
        for window, items in zip(windows, found, strict=True):
            for item in items:
                start, end = (window.start_char + item[side] for side in ("start", "end"))
                span = window.doc.char_span(start, end, item["label"], alignment_mode="expand")
                if span is not None:
                    span._.mmcot_score = item["score"]
                    spans[window.doc].append(span)
        for doc in docs:
            kept = filter_spans(spans[doc])
            doc.set_ents(kept, default="outside")
            doc.spans[_OVERLAPPING] = [span for span in spans[doc] if span not in kept]
        yield from docs


EntityTeacher = Language | GlinerTeacher


def read_label_table(path: Path) -> dict[str, str]:
    """The user's labels by the teacher's, from a YAML file `their label: our label`. Raises
    MMCoTError where it is missing or something else."""
    table = read_yaml(path)
    table = dict(table) if isinstance(table, dict) else table
    if not (isinstance(table, dict) and table and all(isinstance(v, str) for v in table.values())):
        raise MMCoTError(Errors.E509.format(path=path, received=shown(table)))
    return {str(theirs): ours for theirs, ours in table.items()}


def check_label_table(teacher: EntityTeacher, labels: Mapping[str, str]) -> None:
    """Raises MMCoTError where no component of the pipeline finds entities, or the table names none
    of their labels. Nothing is known of a component that does not declare what it assigns."""
    if isinstance(teacher, GlinerTeacher):
        return
    assigns = {name: teacher.get_pipe_meta(name).assigns for name in teacher.pipe_names}
    if not all(assigns.values()):
        return
    names = [name for name in assigns if "doc.ents" in assigns[name]]
    if not names:
        raise MMCoTError(Errors.E502.format(pipeline=teacher.pipe_names))
    known = {label for name in names for label in teacher.pipe_labels.get(name, ())}
    if known and known.isdisjoint(labels):
        raise MMCoTError(Errors.E510.format(received=sorted(labels), allowed=sorted(known)))


def predict_mapped_tags(
    teacher: EntityTeacher, docs: Sequence[Doc], labels: Mapping[str, str], dropped: Counter[str]
) -> list[SoftTags]:
    """Tag probabilities of each Doc from the entities that the teacher finds: an entity's score on
    its tags, the rest on O. docs: on the teacher's vocab, without annotation; they get the
    teacher's. labels: the user's labels by the teacher's. dropped: counts entities of other labels,
    and those that overlap others."""
    tags = list_tags(set(labels.values()))
    result = []
    for doc in teacher.pipe(docs):
        scored = []
        for ent in doc.ents:
            if ent.label_ in labels:
                score = DEFAULT_SCORE if ent._.mmcot_score is None else ent._.mmcot_score
                scored.append((ent.start, ent.end, labels[ent.label_], score))
            else:
                dropped[ent.label_] += 1
        dropped.update(span.label_ for span in doc.spans.get(_OVERLAPPING, ()))
        result.append(SoftTags(tags, make_tag_probabilities(len(doc), tags, scored)))
    return result
