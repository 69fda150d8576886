"""Reading a corpus of files of any format: its posts, their pictures, splits, and labels."""

from __future__ import annotations

import base64
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from ..errors import Errors, MMCoTError
from ..files import check_exists, replace_file
from ..pictures.read import SUFFIXES, BadPicture, check_roots, is_address, make_local_policy
from ..types import Format, Post, Split, make_text_key
from . import conll, docbin, exports, mnre, posts, tables
from .posts import DEFAULTS, Findings, ReadSettings, Row

FORMATS: tuple[Format, ...] = get_args(Format)

_READERS: dict[Format, Callable[[Path, Findings, ReadSettings], Iterator[Row]]] = {
    "posts": posts.read_rows,
    "text": tables.read_text_lines,
    "table": tables.read_rows,
    "conll": conll.read_rows,
    "prodigy": exports.read_prodigy,
    "doccano": exports.read_doccano,
    "label-studio": exports.read_label_studio,
    "spacy": docbin.read_rows,
    "spacy-json": exports.read_tuples,
    "mnre": mnre.read_rows,
}

_PEEKED = 1000  # rows that are looked at for the format
_CONLL_SUFFIXES = {".conll", ".bio", ".iob", ".iob2", ".bioes", ".bilou"}
_PRODIGY_FIELDS = {"spans", "answer", "meta", "_input_hash", "_task_hash", "_view_id"}
# Of the files that are read in a folder: the data that Hugging Face's datasets wrote, too.
_FOLDER_SUFFIXES = (docbin.SUFFIX, ".arrow", ".parquet")
# What files of pictures begin with, and what their names end in.
_BEGINNINGS = {
    **{b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"},
    **{b"II*\0": ".tif", b"MM\0*": ".tif", b"\0\0\0": ".heic"},
}
_OUTSIDE = "pictures outside of their file's folder and the working directory, kept"
_NAMED = "posts whose picture the file names; give its folder with --pictures"
_SEVERAL = "posts whose picture several files have the name of, the first taken"


def guess_format(path: Path, settings: ReadSettings = DEFAULTS) -> Format:
    """Detect a file's format by its name and first rows. Raises MMCoTError if it is unknown."""
    suffix = path.suffix.lower()
    if suffix == docbin.SUFFIX:
        return "spacy"
    if suffix in _CONLL_SUFFIXES:
        return "conll"
    if suffix == ".tsv":
        # A header with a column of texts, or a token and its tag in each line.
        _, header, _ = tables.read_layout(path, settings)
        is_table = settings.text_column or tables.find_text_column(header, settings)
        return "conll" if not is_table and conll.looks_like_conll(path, settings) else "table"
    if suffix in (".csv", ".parquet", ".arrow"):
        return "table"
    if suffix == ".txt":
        _, first = next(posts.iter_filled_lines(path, settings.encoding), (0, b""))
        if first.lstrip().startswith(b"{"):
            is_json = any(isinstance(value, dict) for value in _peek_json(path, settings))
            return "posts" if is_json else "mnre"
        return "conll" if conll.looks_like_conll(path, settings) else "text"
    if suffix in (".jsonl", ".ndjson", ".json"):
        rows = list(_peek_json(path, settings))
        # A row without labels tells little.
        labelled = [row for row in rows if not isinstance(row, dict) or _find_labels(row)]
        guesses = [_guess_json(path, row) for row in [*rows[:1], *labelled[:1]]]
        telling = [guess for guess in guesses if guess not in ("posts", "table")]
        return next(iter([*telling, *guesses]), "posts")
    raise MMCoTError(Errors.E104.format(path=path, allowed=", ".join(FORMATS)))


def _peek_json(path: Path, settings: ReadSettings) -> Iterator[Any]:
    """The first values of a JSON or JSON Lines file that can be read."""
    values = posts.iter_values(path, Findings(skip_invalid=True), settings.encoding)
    return (value for *_, value in islice(values, _PEEKED))


def _find_labels(row: dict[str, Any]) -> Any:
    """The first label of a row; None where it has none."""
    lists = [row.get(name) for name in ("entities", "label", "labels", "spans", "annotations")]
    return next((found[0] for found in lists if isinstance(found, list) and found), None)


def _guess_json(path: Path, row: Any) -> Format:
    """The format of JSON or JSON Lines by one of its values."""
    if isinstance(row, list):
        return "spacy-json"
    if not isinstance(row, dict):
        return "posts"
    if "paragraphs" in row:
        raise MMCoTError(Errors.E109.format(path=path))
    labels = row.get("label", row.get("labels"))
    first = _find_labels(row)
    fields = first if isinstance(first, dict) else {}
    if "data" in row and row.keys() & {"annotations", "completions", "predictions"}:
        return "label-studio"
    if "labels" in fields and "start" in fields:
        return "label-studio"
    if "start_offset" in fields or row.keys() & {"Comments"}:
        return "doccano"
    if isinstance(first, list):
        return "doccano" if labels else "spacy-json"
    if row.keys() & _PRODIGY_FIELDS:
        return "prodigy"
    if labels == [] and "text" in row:
        return "doccano"
    # Tables hold numbers as ids, and columns of their own. A field of a post that is misspelt is
    # none of these: read as a post, the row is refused by its name.
    is_post = "id" in row and not isinstance(row["id"], int)
    own = row.keys() - Post.model_fields.keys()
    return "posts" if is_post and all(map(posts.is_misspelt_field, own)) else "table"


def read_rows(
    path: Path, findings: Findings, ids: dict[str, int], settings: ReadSettings = DEFAULTS
) -> Iterator[Row]:
    """Stream a file's rows. Their ids are unique among `ids`, to which they are added.

    A picture's path is relative to the file's folder in the file, and to the working directory in
    the rows; a picture that is not there is reported. Raises MMCoTError for a file that is missing
    or of another format and, unless `findings.skip_invalid`, at the first invalid row.
    """
    chosen: Any = settings.format or guess_format(path, settings)
    # A folder of Hugging Face's datasets has a folder for each split.
    own_split = posts.find_split(path.stem) or (
        posts.find_split(path.parent.name) if path.suffix == ".arrow" else None
    )
    index = None if settings.pictures is None else _index_pictures(settings.pictures)
    for row in _READERS[chosen](path, findings, settings):
        post = row.post
        update: dict[str, Any] = {}
        with findings.checking(path, row.place):
            if chosen == "posts":
                posts.claim_id(post.id, ids)
            elif (name := posts.make_unique_id(post.id, ids)) != post.id:
                findings.change("repeated ids, numbered", f"{path}, {row.place}: {name}")
                update["id"] = name
                if row.answers is not None:
                    row = row._replace(answers=row.answers.model_copy(update={"id": name}))
            if settings.split:
                update["split"] = settings.split
            elif "split" not in post.model_fields_set and own_split:
                update["split"] = own_split
            update["image"] = image = _find_picture(path, row, chosen, index, settings, findings)
            if ascii(image).count("\\udc"):
                problem = f"the path of the picture {image!a} is not UTF-8"
                raise posts.BadRow(problem, "folders whose names are UTF-8")
            yield row._replace(post=post.model_copy(update=update))


def read_corpus(
    paths: Sequence[Path], findings: Findings, settings: ReadSettings = DEFAULTS
) -> list[Row]:
    """The rows of several files, or of those in folders, whose ids are unique among all."""
    ids: dict[str, int] = {}
    files = [file for path in paths for file in docbin.list_files(path, _FOLDER_SUFFIXES)]
    for other in docbin.list_unread(paths, files):
        findings.change("files in folders that are not read", str(other))
    rows: list[Row] = []
    for file in files:
        before = len(rows)
        rows += read_rows(file, findings, ids, settings)
        if len(rows) == before and len(files) > 1:
            findings.change("files without a post", str(file))
    return rows


def _index_pictures(folder: Path) -> dict[str, list[Path]]:
    """The pictures in a folder by their names, with and without what they end in."""
    check_exists(folder)
    if not folder.is_dir():
        raise MMCoTError(Errors.E102.format(path=folder, reason="it is no folder"))
    index: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        index[path.stem].append(path)
        index[path.name].append(path)
    return index


def _find_picture(
    path: Path,
    row: Row,
    format: Format,
    index: dict[str, list[Path]] | None,
    settings: ReadSettings,
    findings: Findings,
) -> str | None:
    """The path or address of the row's picture, None where it has none. index: the pictures in the
    folder of the settings."""
    image, place = row.post.image, f"{path}, {row.place}"
    if image is not None:
        if image[:5].lower() == "data:":
            return _extract_picture(image, place, settings, findings)
        if format != "spacy":
            # The paths in a .spacy file are relative to the working directory already.
            image = posts.join_image(path.parent, image)
        if is_address(image):
            return image
        if os.path.isfile(image):
            try:
                check_roots(image, make_local_policy(path.parent))
            except BadPicture:
                findings.change(_OUTSIDE, f"{row.post.id}: {image}")
            return image
    if index is not None:
        named = [name for name in (row.picture, image and Path(image).name, row.post.id) if name]
        # The file may have been converted since: any picture of the same stem will do.
        named += [Path(name).stem for name in named if Path(name).suffix.lower() in SUFFIXES]
        if name := next((name for name in named if name in index), None):
            folders = Path(row.post.image or "").parts[:-1]
            same = [p for p in index[name] if p.parent.parts[-len(folders) :] == folders]
            first, *others = same or index[name]
            if others:
                findings.change(_SEVERAL, f"{row.post.id}: {first}, {others[0]}")
            return first.as_posix()
    if image is not None:
        findings.change("posts whose picture is not there", f"{row.post.id}: {image[:200]}")
    elif row.picture is not None and index is None:
        findings.change(_NAMED, f"{place}: {row.picture}")
    return image


def _extract_picture(
    image: str, place: str, settings: ReadSettings, findings: Findings
) -> str | None:
    """Write the picture of a data URL to a file, named by its content, and return its path."""
    head, _, data = image.partition(",")
    content = b""
    if head.endswith(";base64"):
        with suppress(ValueError):
            content = base64.b64decode("".join(data.split()), validate=True)
    suffix = next((end for begin, end in _BEGINNINGS.items() if content.startswith(begin)), None)
    if suffix is None:
        findings.lose("pictures in the file that cannot be read", f"{place}: {head[:60]}")
        return None
    if settings.extracted is None:
        findings.lose("pictures in the file, for which there is no folder", place)
        return None
    target = settings.extracted / f"{sha256(content).hexdigest()[:16]}{suffix}"
    if not target.exists():
        with replace_file(target) as temporary:
            temporary.write_bytes(content)
    return target.as_posix()


def replace_labels(rows: Iterable[Row], reviewed: Iterable[Row], findings: Findings) -> list[Row]:
    """The rows with text and labels of the reviewed posts that have the same id, or else the same
    text, and then the other reviewed posts. Rows keep their split, except that `unlabelled` becomes
    `train`. Reviewed posts without labels are left out: tools also export tasks that nobody has
    worked on."""
    rows = list(rows)
    known = {row.post.id for row in rows}
    by_id: dict[str, Row] = {}
    by_text: dict[str, list[Row]] = defaultdict(list)  # tools give texts ids of their own
    for row in reviewed:
        if row.post.entities is None:
            findings.change("posts without labels among the reviewed ones, left out", row.post.id)
        elif row.post.id in known:
            by_id[row.post.id] = row
        else:
            by_text[row.post.text].append(row)
    kept = []
    for row in rows:
        post = row.post
        same = by_text.get(post.text)
        if new := by_id.get(post.id) or (same and same.pop(0)):
            if post.relations and new.post.relations is None:
                findings.lose("posts whose relations are gone, as their review has none", post.id)
            names = ("text", "entities", "relations", "pairs", "missing", "rejected")
            update = {name: getattr(new.post, name) for name in names}
            split = "train" if post.split == "unlabelled" else post.split
            row = row._replace(post=post.model_copy(update={**update, "split": split}))
        kept.append(row)
    added = [row for left in by_text.values() for row in left]
    for row in added:
        findings.change("reviewed posts that are none of the others, added", row.post.id)
    return kept + added


def split_rows(rows: Sequence[Row], shares: Mapping[Split, float]) -> list[Row]:
    """The rows, with shares of the posts of the split `train` moved to other splits.

    The posts of one document, and those of one text, stay together. Each split gets its share of
    each label, the rarest first, and of the posts without a label (iterative stratification:
    Sechidis et al., ECML 2011). The same rows are split in the same way.

    shares: from 0 to 1, their sum below 1.
    """
    groups = _group_rows([i for i, row in enumerate(rows) if row.post.split == "train"], rows)
    groups.sort(key=lambda group: posts.make_text_id(rows[group[0]].post.text))
    labels = [Counter(x for i in group for x in list_labels(rows[i].post)) for group in groups]
    totals: Counter[str] = sum(labels, Counter())
    quota: dict[Split, float] = {**shares, "train": 1 - sum(shares.values())}
    # How much of each label each split still wants; "" stands for posts.
    wants = {
        split: {"": share * sum(map(len, groups)), **{x: share * n for x, n in totals.items()}}
        for split, share in quota.items()
    }
    chosen: dict[int, Split] = {}
    left = dict.fromkeys(range(len(groups)))
    for label in [*sorted(totals, key=lambda x: (totals[x], x)), ""]:
        for g in [g for g in left if not label or label in labels[g]]:
            split = max(quota, key=lambda s: (wants[s][label], wants[s][""], s == "train"))
            del left[g]
            chosen |= dict.fromkeys(groups[g], split)
            wants[split][""] -= len(groups[g])
            for name, count in labels[g].items():
                wants[split][name] -= count
    return [
        row._replace(post=row.post.model_copy(update={"split": chosen[i]})) if i in chosen else row
        for i, row in enumerate(rows)
    ]


def _group_rows(indexes: Sequence[int], rows: Sequence[Row]) -> list[list[int]]:
    """The indexes of rows that must stay together: parts of one document, or posts of one text, up
    to case and punctuation."""
    parent = {i: i for i in indexes}

    def find_root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first: dict[object, int] = {}
    for i in indexes:
        keys = [("text", make_text_key(rows[i].post.text)), ("group", rows[i].group)]
        for key in keys[: 1 if rows[i].group is None else 2]:
            parent[find_root(i)] = find_root(first.setdefault(key, i))
    groups: dict[int, list[int]] = defaultdict(list)
    for i in indexes:
        groups[find_root(i)].append(i)
    return list(groups.values())


def list_labels(post: Post) -> list[str]:
    """The labels of a post's entities and relations; none where its labels are not used."""
    if post.split == "unlabelled":
        return []
    return [item.label for item in [*(post.entities or ()), *(post.relations or ())]]


def count_labels(posts: Iterable[Post]) -> dict[Split, Counter[str]]:
    """How often each label occurs in each split."""
    counts: dict[Split, Counter[str]] = defaultdict(Counter)
    for post in posts:
        counts[post.split].update(list_labels(post))
    return counts


def check_labels(posts: Sequence[Post], findings: Findings) -> None:
    """Report labels that differ in case, space or punctuation alone, labels that are held out and
    that no training post has, and training posts whose text is also held out."""
    counts = count_labels(posts)
    every: Counter[str] = sum(counts.values(), Counter())
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(every):
        alike[re.sub(r"[\W_]+", "", label).casefold()].append(label)
    for names in alike.values():
        if len(names) > 1:
            shown = ", ".join(f"{name!r} ({every[name]})" for name in names)
            findings.change("labels that look like the same one", shown)
    if counts["train"]:
        for label in sorted(every.keys() - counts["train"].keys()):
            where = ", ".join(split for split in counts if label in counts[split])
            findings.change("labels that no training post has", f"{label!r}, in {where}")
    held_out = {make_text_key(post.text) for post in posts if post.split in ("dev", "test")}
    for post in posts:
        is_gold = post.split == "train" and post.entities is not None
        if is_gold and make_text_key(post.text) in held_out:
            findings.change("training posts whose text is also held out", post.id)
