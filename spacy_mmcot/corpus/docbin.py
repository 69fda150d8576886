"""`.spacy` files (spaCy's DocBin): writing Docs, and reading them as Docs, as posts, and as
Examples for training, `spacy_mmcot.Corpus.v1`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.vocab import Vocab

from .. import types
from ..errors import Errors, MMCoTError
from ..files import check_exists, read_bytes, replace_file
from ..pictures.read import SUFFIXES, get_image
from ..types import PICTURES, TOKENS, Answers, Pictures, Post, Tokens
from .extensions import (
    copy_entities,
    copy_tokens,
    get_pairs,
    get_relations,
    list_missing,
    list_relations,
    register_extensions,
)
from .posts import Findings, ReadSettings, Row, make_text_id

SUFFIX = ".spacy"
# How the names of caches begin, which stay beside a dataset and hold what it was computed from.
_CACHE = "cache-"
# What Hugging Face's datasets keep beside their tables.
_METADATA = {"dataset_dict.json", "dataset_info.json", "state.json"}


def list_files(path: Path, suffixes: Sequence[str] = (SUFFIX,)) -> list[Path]:
    """The corpus files at a path: the file itself, or those in the folder with the first of the
    suffixes that any has, in order of name. Raises MMCoTError where there is none."""
    check_exists(path)
    if not path.is_dir():
        return [path]
    for suffix in suffixes:
        found = sorted(path.rglob(f"*{suffix}"))
        if found := [file for file in found if not file.name.startswith(_CACHE)]:
            return found
    raise MMCoTError(Errors.E203.format(path=path))


def list_unread(paths: Iterable[Path], files: Iterable[Path]) -> list[Path]:
    """The files in the folders among the paths that are not among the given ones, without hidden
    files and folders, pictures, and what Hugging Face's datasets keep beside their tables."""
    inside = {
        file
        for path in paths
        if path.is_dir()
        for file in path.rglob("*.*")
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    }
    return sorted(
        file
        for file in inside.difference(files)
        if file.suffix.lower() not in SUFFIXES
        and file.name not in _METADATA
        and not file.name.startswith(_CACHE)
        and file.is_file()
    )


def load_docbin(path: Path) -> DocBin:
    """One file. Raises MMCoTError where it is missing, or no DocBin."""
    data = read_bytes(path)
    if not data:
        raise MMCoTError(Errors.E201.format(path=path, reason="the file is empty"))
    try:
        return DocBin().from_bytes(data)
    # A foreign file makes zlib, msgpack and numpy raise errors of any kind.
    except Exception as error:
        raise MMCoTError(Errors.E201.format(path=path, reason=error)) from None


def read_docs(path: Path | str, vocab: Vocab) -> Iterator[Doc]:
    """The Docs of one file. Raises MMCoTError for one that is missing, no DocBin, or without
    documents."""
    docbin = load_docbin(Path(path))
    if not len(docbin):
        raise MMCoTError(Errors.E202.format(path=path))
    yield from docbin.get_docs(vocab)


def read_all_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """The Docs of all files at a path. Raises MMCoTError as `list_files` and `read_docs` do."""
    return (doc for file in list_files(path) for doc in read_docs(file, vocab))


def write_docs(path: Path | str, docs: Iterable[Doc]) -> None:
    """Write one file, user data included, whole or not at all. Equal Docs give equal bytes."""
    docbin = DocBin(docs=docs, store_user_data=True)
    with replace_file(Path(path)) as temporary:
        temporary.write_bytes(docbin.to_bytes())


def read_rows(path: Path, findings: Findings, settings: ReadSettings) -> Iterator[Row]:
    """The Docs of a file as posts, with the knowledge that they hold. A Doc without an id is named
    by its text."""
    for number, doc in enumerate(read_docs(path, Vocab())):
        place = f"document {number}"
        name = doc.user_data.get(types.ID_KEY) or make_text_id(doc.text)
        with findings.checking(path, place):
            post = make_post(doc, name, f"{path}, {place}", findings)
            yield Row(number, post, place, _make_answers(doc, name))


def make_post(doc: Doc, name: str, place: str, findings: Findings) -> Post:
    """The Doc as a post: labels, pairs, picture and caption. place: what findings call the Doc."""
    image = get_image(doc)
    if isinstance(image, bytes):
        findings.lose("pictures kept as bytes, which a post cannot hold", place)
        image = None
    if unread := ", ".join(key for key in doc.spans if key != types.REJECTED_KEY):
        findings.change("documents with groups of spans, which are not read", f"{place}: {unread}")
    fields: dict[str, Any] = {
        "id": name,
        "text": doc.text,
        "image": image,
        "caption": _get_knowledge(doc).get("caption"),
    }
    if doc.has_annotation("ENT_IOB"):
        fields["entities"] = list(map(_describe_span, doc.ents))
        if missing := list_missing(doc):
            findings.change("documents labelled in part, their other tokens missing", place)
            fields["missing"] = missing
        if types.REJECTED_KEY in doc.spans:
            fields["rejected"] = list(map(_describe_span, doc.spans[types.REJECTED_KEY]))
        indexes = {(ent.start, ent.end): i for i, ent in enumerate(doc.ents)}

        def find_ends(head: Span, tail: Span, what: str, shown: str) -> list[int] | None:
            """The indexes of both among the entities; None where one is no entity."""
            ends = [indexes.get((span.start, span.end)) for span in (head, tail)]
            if None in ends:
                findings.lose(f"{what} spans that are no entities", f"{place}: {shown}")
            return None if None in ends else ends  # type: ignore[return-value]

        if list_relations(doc) is not None:
            fields["relations"] = [
                {"head": ends[0], "tail": ends[1], "label": label}
                for head, tail, label, _ in get_relations(doc)
                if (ends := find_ends(head, tail, "relations between", label))
            ]
        if (pairs := get_pairs(doc)) is not None:
            found = [find_ends(*pair, "pairs of", f"{pair[0]}, {pair[1]}") for pair in pairs]
            fields["pairs"] = [ends for ends in found if ends]
    return Post.model_validate(fields)


def _describe_span(span: Span) -> dict[str, Any]:
    return {"start": span.start_char, "end": span.end_char, "label": span.label_}


def _make_answers(doc: Doc, name: str) -> Answers | None:
    knowledge = _get_knowledge(doc)
    known = {key: knowledge[key] for key in types.KNOWLEDGE if key in knowledge}
    if "noun" in known:
        known["noun"] = list(known["noun"])
    return Answers.model_validate({"id": name, **known}) if known else None


def _get_knowledge(doc: Doc) -> Mapping[str, Any]:
    return doc.user_data.get(types.KNOWLEDGE_KEY) or {}


def Corpus(
    path: str | Path | None,
    *,
    limit: int = 0,
    knowledge: bool = True,
    gold_entities: bool = False,
    pictures: Pictures = "none",
    tokens: Tokens = "gold",
) -> Callable[[Language], Iterator[Example]]:
    """`spacy_mmcot.Corpus.v1`: reads Examples from a `.spacy` file, or from all in a folder.

    The reference keeps all that it was stored with: entities, relations, soft labels. The predicted
    Doc has the reference's text, id and prompt target, and more as the settings say.

    limit: the greatest number of Examples, 0 for all.
    knowledge: the predicted Doc has the reference's knowledge.
    gold_entities: the predicted Doc has the reference's entities, and the pairs of them that were
        judged.
    pictures: "real": the predicted Doc has the reference's picture; "none": it has none.
    tokens: "gold": the predicted Doc has the reference's tokens, which soft labels need;
        "pipeline": those of the pipeline's tokenizer, as when it is used, unless it has the gold
        entities.

    The reader raises MMCoTError for a path that is not set, missing, no DocBin, or empty, and for
    unknown `pictures` or `tokens`.
    """

    def read(nlp: Language) -> Iterator[Example]:
        if path is None:
            raise MMCoTError(Errors.E204)
        docs = islice(read_all_docs(Path(path), nlp.vocab), limit if limit > 0 else None)
        yield from make_examples(nlp, docs, knowledge, gold_entities, pictures, tokens)

    return read


def make_examples(
    nlp: Language,
    references: Iterable[Doc],
    knowledge: bool = True,
    gold_entities: bool = False,
    pictures: Pictures = "none",
    tokens: Tokens = "gold",
) -> Iterator[Example]:
    """Examples of these reference Docs, as `Corpus` describes them. Raises MMCoTError for unknown
    `pictures` or `tokens`."""
    for name, value, allowed in (("pictures", pictures, PICTURES), ("tokens", tokens, TOKENS)):
        if value not in allowed:
            received, known = repr(value), ", ".join(allowed)
            raise MMCoTError(Errors.E409.format(name=name, received=received, allowed=known))
    register_extensions()
    copied: list[Any] = [types.ID_KEY, types.PROMPT_TARGET_KEY]
    if knowledge:
        copied.append(types.KNOWLEDGE_KEY)
    if pictures == "real":
        copied.append(types.IMAGE_KEY)
    for reference in references:
        predicted = copy_tokens(reference, copied)
        if gold_entities:
            copy_entities(reference, predicted)
        elif tokens == "pipeline":
            own = nlp.make_doc(reference.text)
            own.user_data.update(predicted.user_data)
            predicted = own
        yield Example(predicted, reference)
