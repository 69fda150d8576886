"""The job of the command `teach`: soft labels for the Docs of files, a chunk at a time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import srsly
from spacy.vocab import Vocab

from .. import __version__
from ..corpus.docbin import list_files, read_all_docs, read_docs, write_docs
from ..distillation import conclusions
from ..distillation.entity_teachers import GLINER_PREFIX, EntityTeacher, GlinerTeacher
from ..distillation.teach import KnowledgeEncoder, get_encoder_source, set_prompt_targets, teach
from ..errors import Errors, MMCoTError
from ..model.knowledge import get_concluded_entities, get_concluded_relations
from ..scheme import read_scheme
from ..types import DEFAULT_CONFIDENCE, Sureness
from .engines import Engine, run_chunks
from .job import Layout, digest_files, digest_pipeline, load_pipeline, open_job, use_gpu
from .table_spacy import read_docs as read_chunk
from .tables import DEFAULT_COLUMNS, Chunk, list_chunks


@dataclass(frozen=True)
class TeachRequest:
    """What is to be labelled, and how.

    teachers: sources of pipelines, or `gliner:NAME_OR_FOLDER`, see `teach`.
    inputs: .spacy files or folders of them.
    labels: the user's labels by the teachers', for teachers other than mmcot_ner and mmcot_rel.
    prompt_length: prompt vectors to store a target for, 0 for none.
    knowledge_encoder: encoder source of the prompt targets; None for the first teacher's own.
    batch_size: Docs that run together.
    chunk: Docs that are lost, and labelled again, when the job is killed.
    gpu: number of the GPU to run on, -1 for the processor.
    """

    teachers: Sequence[str]
    inputs: Sequence[Path]
    output: Path
    labels: Mapping[str, str] | None = None
    pictures: bool = True
    prompt_length: int = 0
    knowledge_encoder: str | None = None
    batch_size: int = 64
    chunk: int = 500
    gpu: int = -1


@dataclass(frozen=True)
class TeachResult:
    """Counts of Docs: all, those without entity annotation, those with a prompt target; and of the
    entities that were dropped, by the teachers' labels."""

    docs: int
    unlabelled: int
    prompt_targets: int
    dropped: Counter[str]
    seconds: float


@dataclass(frozen=True)
class ConclusionResult:
    """Counts of Docs: all, those with a conclusion, those with entity annotation; how far the
    conclusions were trusted; and the labels of theirs and of gold that the scheme lacks."""

    docs: int
    with_conclusion: int
    labelled: int
    confidence: conclusions.Confidence
    unknown: Sequence[str]


def teach_from_conclusions(
    inputs: Sequence[Path],
    output: Path,
    scheme: Path | None = None,
    default: Mapping[Sureness, float] = DEFAULT_CONFIDENCE,
) -> ConclusionResult:
    """Write the Docs of all inputs, in order, with soft labels from their conclusions to the
    output.

    scheme: whose labels count; None for all labels that conclusions and gold have.
    default: P(right) by sureness, where too few labelled Docs have conclusions to measure it.

    Raises MMCoTError for inputs or a scheme that cannot be used, and where no Doc has a conclusion.
    """
    vocab = Vocab()
    docs = [doc for path in inputs for doc in read_all_docs(path, vocab)]
    readers = (get_concluded_entities, get_concluded_relations)
    concluded = sum(any(read(doc) is not None for read in readers) for doc in docs)
    if not concluded:
        raise MMCoTError(Errors.E506.format(paths=", ".join(map(str, inputs))))
    confidence = conclusions.measure_confidence(docs, default)
    found = entities, relations = conclusions.collect_labels(docs)
    if scheme is not None:
        known = read_scheme(scheme)
        entities, relations = list(known.entities), list(known.relations)
    unknown = sorted({*found[0]} - {*entities} | {*found[1]} - {*relations})
    write_docs(
        output, conclusions.set_labels_from_conclusions(docs, entities, relations, confidence)
    )
    labelled = sum(doc.has_annotation("ENT_IOB") for doc in docs)
    return ConclusionResult(len(docs), concluded, labelled, confidence, unknown)


class _ChunkTeacher:
    """Labels the Docs of chunks and writes each chunk as a part; made in each worker."""

    def __init__(self, request: TeachRequest, layout: Layout) -> None:
        self._request, self._layout = request, layout
        use_gpu(request.gpu)
        self._teachers = load_teachers(request.teachers, request.labels)

    def __call__(self, chunk: Chunk) -> None:
        request, dropped = self._request, Counter[str]()
        taught = teach(
            self._teachers,
            read_chunk(chunk, self._teachers[0].vocab),
            labels=request.labels,
            dropped=dropped,
            pictures=request.pictures,
            batch_size=request.batch_size,
        )
        docs = list(taught)
        if dropped:
            srsly.write_json(self._layout.rejects_part(chunk.number), dropped)
        write_docs(self._layout.part(chunk.number), docs)


def load_teachers(
    sources: Sequence[str], labels: Mapping[str, str] | None = None
) -> list[EntityTeacher]:
    """The teachers; without `labels`, pipelines on the vocab of the first, which read the same
    Docs. Raises MMCoTError for a GLiNER model without `labels`."""
    teachers: list[EntityTeacher] = []
    for source in sources:
        if not source.startswith(GLINER_PREFIX):
            shared = teachers[0].vocab if teachers and labels is None else None
            teachers.append(load_pipeline(source, shared))
        elif labels is None:
            raise MMCoTError(Errors.E513.format(source=source))
        else:
            teachers.append(GlinerTeacher(source.removeprefix(GLINER_PREFIX), labels))
    return teachers


def _digest_teacher(source: str) -> str:
    """What tells a teacher from another one: its files' digest, the name of a model of the hub."""
    folder = source.removeprefix(GLINER_PREFIX)
    is_files = folder == source or Path(folder).is_dir()
    return digest_pipeline(folder) if is_files else source


def teach_files(request: TeachRequest, engine: Engine) -> TeachResult:
    """Write the Docs of all inputs, in order, with the teachers' soft labels to the output. Parts
    lie beside it until it is written; the same request goes on with those that are there. Raises
    MMCoTError for inputs, an output or pipelines that cannot be used."""
    started = time.perf_counter()
    files = [file for path in request.inputs for file in list_files(path)]
    identity = {
        "input": digest_files(files),
        "pipelines": [_digest_teacher(source) for source in request.teachers],
        "labels": request.labels,
        "pictures": request.pictures,
        "chunk": request.chunk,
        "version": __version__,
    }
    layout = Layout(request.output.with_name(request.output.name + ".teach"), "spacy")
    chunks, _ = list_chunks(files, request.chunk, DEFAULT_COLUMNS, False)
    filled = {chunk.path for chunk in chunks}
    if empty := [path for path in files if str(path) not in filled]:
        raise MMCoTError(Errors.E202.format(path=empty[0]))
    with open_job(layout, identity) as job:
        job.begin(overwrite=not job.is_same())
        make = partial(_ChunkTeacher, request, layout)
        run_chunks(job, chunks, make, engine)
        vocab = Vocab()
        docs = [doc for chunk in chunks for doc in read_docs(layout.part(chunk.number), vocab)]
        dropped: Counter[str] = Counter()
        for path in layout.work.glob("*.rejected.jsonl"):
            dropped.update(srsly.read_json(path))
        n_targets = 0
        if request.prompt_length:
            source = request.knowledge_encoder or get_encoder_source(
                load_pipeline(request.teachers[0])
            )
            encoder = KnowledgeEncoder(source, request.prompt_length)
            n_targets = set_prompt_targets(docs, encoder, request.batch_size)
        write_docs(request.output, docs)
        job.clear()
    unlabelled = sum(not doc.has_annotation("ENT_IOB") for doc in docs)
    return TeachResult(len(docs), unlabelled, n_targets, dropped, time.perf_counter() - started)
