"""Teaching a corpus in parts, so that a cluster can share it: the teacher's part of `teach`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab

from .. import __version__
from ..corpus.docbin import read_docs, write_docs
from ..corpus.extensions import set_image
from ..distillation.teach import teach_together
from ..docs import get_image
from .annotate import Loader
from .engines import Engine, Told, run_chunks
from .job import Layout, Outcome, files_digest, opened_job
from .pipelines import digest_pipeline
from .table_spacy import read_docs as read_chunk
from .table_spacy import survey
from .tables import DEFAULT_NAMES, Chunk


def load_teachers(sources: Sequence[str], load: Loader) -> list[Language]:
    """All on the vocab of the first, so that they can read the same Docs."""
    first = load(sources[0])
    return [first, *(load(source, first.vocab) for source in sources[1:])]


def taught(
    teachers: Sequence[Language], docs: Iterable[Doc], pictures: bool, batch_size: int
) -> list[Doc]:
    """The Docs with the teachers' soft labels. Without `pictures` the Docs' pictures are hidden
    from them, not lost: the student may train on them."""
    docs = list(docs)
    hidden = [] if pictures else [get_image(doc) for doc in docs]
    for doc in docs if hidden else ():
        set_image(doc, None)
    docs = list(teach_together(teachers, docs, batch_size))
    for doc, picture in zip(docs, hidden, strict=False):
        set_image(doc, picture)
    return docs


@dataclass(frozen=True)
class TeachSettings:
    """What a worker needs to know; can be pickled. `load` gives the pipeline of a source,
    on a vocab if it is given one."""

    sources: Sequence[str]
    load: Loader
    layout: Layout
    pictures: bool
    batch_size: int


class Teacher:
    """Teaches the Docs of chunks and writes each as a part."""

    def __init__(self, settings: TeachSettings) -> None:
        self.settings = settings
        self._teachers = load_teachers(settings.sources, settings.load)

    def __call__(self, chunk: Chunk) -> Outcome:
        settings = self.settings
        docs = read_chunk(chunk, self._teachers[0].vocab)
        done = taught(self._teachers, docs, settings.pictures, settings.batch_size)
        write_docs(settings.layout.part(chunk.number), done)
        return Outcome(chunk.number, len(done), 0)


@contextmanager
def taught_in_parts(
    sources: Sequence[str],
    load: Loader,
    files: Sequence[Path],
    output: Path,
    engine: Engine,
    *,
    pictures: bool = True,
    batch_size: int = 64,
    chunk: int = 500,
    told: Told = lambda total, done: None,
) -> Iterator[list[Doc]]:
    """All Docs of the files, in order, taught by the workers of an engine. The parts lie beside
    `output` until the block ends without an error, so a job that was stopped goes on.

    Raises MMCoTError for files or a pipeline that cannot be used.
    """
    identity = {
        "input": files_digest(files),
        "pipelines": [digest_pipeline(source) for source in sources],
        "pictures": pictures,
        "chunk": chunk,
        "version": __version__,
    }
    layout = Layout(output.with_name(output.name + ".teach"), ".spacy")
    with opened_job(layout, identity) as job:
        job.begin(overwrite=not job.is_same())
        chunks: list[Chunk] = []
        for path in files:
            for position, first, rows in survey(path, chunk, DEFAULT_NAMES, False).chunks:
                chunks.append(Chunk(len(chunks), str(path), "spacy", position, first, rows))
        settings = TeachSettings(sources, load, layout, pictures, batch_size)
        run_chunks(job, chunks, partial(Teacher, settings), engine, told)
        vocab = Vocab()
        yield [doc for c in chunks for doc in read_docs(layout.part(c.number), vocab)]
        job.clear()
