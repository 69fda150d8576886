"""A corpus of real pictures, in which the picture alone tells what an ambiguous name means.

Every name has two or three labels, each as often as the others in each part, and no sentence tells
which one it is. The pictures are public domain drawings from Debian's package openclipart-png, in
folders by label. A picture's subject is the first word of its file's name. The test part shares
with training neither a picture, nor a name with its picture's subject, nor a sentence. Half of the
training posts have pictures that are mirrored.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
import tarfile
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import PIL.Image

from research.errors import StudyErrors
from spacy_mmcot import MMCoTError, PicturePolicy
from spacy_mmcot.messages import first_line
from spacy_mmcot.pictures.decode import decode_picture
from spacy_mmcot.pictures.read import BadPicture
from spacy_mmcot.types import Entity, Post, Split

ADDRESS = (
    "http://deb.debian.org/debian/pool/main/o/openclipart/openclipart-png_0.18+dfsg-19_all.deb"
)
_SHA256 = "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"
_AR = b"!<arch>\n"
_ROOT = "./usr/share/openclipart/png/"

# The folders of pictures that show a thing of each label.
FOLDERS = {
    "PERSON": ("people", "people/stickmen"),
    "PLACE": ("geography", "signs_and_symbols/flags"),
    "ANIMAL": ("animals/mammals", "animals/birds", "animals/bugs", "animals/fish"),
    "FOOD": (
        *("food/fruit", "food/vegetables", "food/breads_and_carbs", "food/desserts"),
        *("food/meats_and_eggs", "food/beverages"),
    ),
    "VEHICLE": ("transportation/vehicles", "transportation/boating"),
    "PRODUCT": ("computer/hardware", "electronics"),
}
# Flags lie in further folders by continent, those of ships and pirates in others.
_CONTINENTS = re.compile(r"(?<=/flags)/(africa|america|asia|europe|oceania)\b.*")
# Subjects that lie in these folders and are not what the label says, by the names of the files.
_ODD_SUBJECTS = frozenset(
    [
        *("fingerprint", "fire", "baby", "chat", "feet", "left", "right", "reminder", "safety"),
        *("samoa", "wedding", "icons", "gender", "crossroads", "curve", "cycle", "parking"),
        *("quay", "lighthouse", "eclipse", "menu", "anchor", "capacitor", "resistor", "signalflag"),
    ]
)
NAMES = {
    "PERSON PLACE": (
        "Victoria Paris Jordan Chelsea Sydney Florence Georgia Charlotte Madison Jackson Houston "
        "Brooklyn Virginia Adelaide Carolina Washington Hamilton Lorraine Vienna"
    ),
    "PERSON PLACE VEHICLE": "Lincoln Austin Hudson Dakota Leon",
    "PERSON VEHICLE": "Ford Mercedes Bentley Morgan Tesla Dodge Mercury",
    "PERSON ANIMAL": "Robin Jay Martin Drake Colt Raven Fox Wolf Wren",
    "PERSON FOOD": "Olive Basil Ginger Rosemary Clementine Cherry Candy Caesar",
    "PERSON PRODUCT": "Alexa Siri Lisa Watson",
    "PLACE ANIMAL": "Phoenix Buffalo Labrador Chihuahua Bengal Komodo Newfoundland",
    "PLACE FOOD": "Bordeaux Champagne Burgundy Cheddar Parma Gouda Cognac Wellington",
    "PLACE FOOD ANIMAL": "Turkey",
    "PLACE FOOD PRODUCT": "Java",
    "PLACE PRODUCT": "Amazon Sierra Catalina Monterey Dell",
    "PLACE VEHICLE": "Malibu Tucson Tahoe Ibiza Granada",
    "ANIMAL VEHICLE": "Mustang Beetle Impala Panda Viper Cobra Falcon Cougar",
    "ANIMAL VEHICLE PRODUCT": "Jaguar Lynx",
    "ANIMAL FOOD": "Kiwi",
    "ANIMAL PRODUCT": "Tiger Leopard",
    "FOOD PRODUCT": "Apple Blackberry Raspberry Lollipop Cupcake",
    "FOOD VEHICLE PRODUCT": "Galaxy",
}
PATTERNS: dict[Split, tuple[str, ...]] = {
    "train": (
        "{} , as seen this morning",
        "A few words about {} before the weekend",
        "Nobody had told me about {} like this",
        "So that is {} , then",
        "{} again , and I am not even sorry",
        "Still thinking of {} today",
        "What do you make of {} ?",
        "Here is {} for everyone who asked",
        "My sister sent me {} out of nowhere",
        "You either like {} or you do not",
        "Found {} at the bottom of the box",
        "It is all about {} this week",
    ),
    "test": (
        "Once more with feeling : {}",
        "They said it could not be done , but look at {}",
        "Could this be the best {} yet ?",
        "Day three with {} and counting",
        "Let me show you {} one last time",
        "I never knew how much I needed {}",
    ),
}
# Posts of each name and label in a round of a part, and the share of pictures that is kept for the
# test.
POSTS: dict[Split, int] = {"train": 5, "test": 2}
_TEST_SHARE = 0.3
_LONGEST_SIDE = 320


class Drawing(NamedTuple):
    """A picture of the archive: its content and what it shows."""

    file: str
    subject: str
    content: bytes


def write_picture_set(folder: Path, archive: Path, *, seed: int = 1) -> Path:
    """Write the corpus and return the path of its posts.jsonl. Equal arguments give equal bytes.

    archive: see `read_archive`.
    """
    rng = random.Random(seed)
    parts = _split(read_archive(archive), rng)
    mirrored = {label: list(map(_mirror, parts["train", label])) for label in FOLDERS}
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    subjects: dict[tuple[Split, str], set[str]] = defaultdict(set)  # of each split and name
    rounds: tuple[tuple[Split, Split, bool], ...] = (
        ("train", "test", False),
        ("test", "train", False),
        ("train", "test", True),
    )
    for split, other, is_mirrored in rounds:
        queues: dict[str, list[Drawing]] = defaultdict(list)
        for name, label in list_posts(split, rng):
            pool = mirrored[label] if is_mirrored else parts[split, label]
            drawing = _take(queues[label], pool, subjects[other, name], rng)
            subjects[split, name].add(drawing.subject)
            lines.append(make_post(len(lines), name, label, drawing, split, rng))
            (folder / "pictures" / drawing.file).write_bytes(drawing.content)
    path = folder / "posts.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _mirror(drawing: Drawing) -> Drawing:
    encoded = io.BytesIO()
    with PIL.Image.open(io.BytesIO(drawing.content)) as image:
        image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).save(encoded, "PNG")
    return drawing._replace(file=f"mirrored-{drawing.file}", content=encoded.getvalue())


def list_posts(split: Split, rng: random.Random) -> list[tuple[str, str]]:
    """The name and label of each post of a part, in random order."""
    readings = [(name, key.split()) for key, names in NAMES.items() for name in names.split()]
    plan = [(name, label) for name, labels in readings for label in labels] * POSTS[split]
    rng.shuffle(plan)
    return plan


def _split(
    drawings: dict[str, list[Drawing]], rng: random.Random
) -> dict[tuple[Split, str], list[Drawing]]:
    parts: dict[tuple[Split, str], list[Drawing]] = {}
    for label, each in drawings.items():
        mixed = rng.sample(each, len(each))
        count = round(_TEST_SHARE * len(mixed))
        parts["test", label], parts["train", label] = mixed[:count], mixed[count:]
    return parts


def _take(
    queue: list[Drawing], pool: list[Drawing], barred: set[str], rng: random.Random
) -> Drawing:
    """The next picture of the queue whose subject is not barred. All of the pool come before one
    comes again."""
    while True:
        for i, drawing in enumerate(queue):
            if drawing.subject not in barred:
                return queue.pop(i)
        queue += rng.sample(pool, len(pool))


def make_post(
    number: int, name: str, label: str, drawing: Drawing, split: Split, rng: random.Random
) -> str:
    """A line of posts.jsonl: a sentence about the name, with the drawing as its picture."""
    pattern = rng.choice(PATTERNS[split])
    start = pattern.index("{}")
    post = Post(
        id=f"picture-{number + 1:04d}",
        text=pattern.format(name),
        entities=[Entity(start=start, end=start + len(name), label=label)],
        image=f"pictures/{drawing.file}",
        split=split,
        domain=drawing.subject,
    )
    return post.model_dump_json(exclude_none=True) + "\n"


def fetch_archive(address: str, folder: Path) -> Path:
    """Download the package into the folder, unless it is there. Raises MMCoTError where it cannot
    be had, or is another one than was measured on."""
    path = folder / address.rsplit("/", 1)[-1]
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(address, timeout=60) as response:
                content = response.read()
        except (OSError, ValueError) as error:
            raise MMCoTError(StudyErrors.E721.format(address=address, reason=error)) from error
        found = hashlib.sha256(content).hexdigest()
        if found != _SHA256:
            reason = f"its SHA-256 is {found}, not {_SHA256}"
            raise MMCoTError(StudyErrors.E721.format(address=address, reason=reason))
        path.write_bytes(content)
    return path


def read_archive(path: Path) -> dict[str, list[Drawing]]:
    """The pictures of each label, scaled down, each content once. Pictures that the default policy
    refuses are left out.

    path: Debian's package, a file of the form ar with a data.tar inside.
    """
    drawings: dict[str, list[Drawing]] = {label: [] for label in FOLDERS}
    labels = {folder: label for label, folders in FOLDERS.items() for folder in folders}
    known = set()
    with tarfile.open(fileobj=io.BytesIO(_find_member(path, b"data.tar"))) as tar:
        for member in tar:
            folder, _, file = member.name.removeprefix(_ROOT).rpartition("/")
            label = labels.get(_CONTINENTS.sub("", folder))
            subject = re.split(r"[_\d.\-]", file.lower())[0]
            if not member.isfile() or label is None or subject in ("", *_ODD_SUBJECTS):
                continue
            content = tar.extractfile(member).read()  # type: ignore[union-attr]
            digest = hashlib.sha256(content).hexdigest()
            if digest in known:
                continue
            known.add(digest)
            try:
                image = decode_picture(content, PicturePolicy(), _LONGEST_SIDE)
            except BadPicture:
                continue
            image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
            encoded = io.BytesIO()
            image.save(encoded, "PNG")
            drawings[label].append(Drawing(f"{digest[:12]}.png", subject, encoded.getvalue()))
    return drawings


def _find_member(path: Path, prefix: bytes) -> bytes:
    """The content of the first member of an ar archive whose name begins so. Raises MMCoTError for
    a file that has none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MMCoTError(StudyErrors.E722.format(path=path, reason=first_line(error))) from None
    position = len(_AR)
    while data.startswith(_AR) and position + 60 <= len(data):
        # Name (16), times and owners (32), size (10), end (2).
        header = data[position : position + 60]
        size = int(header[48:58])
        position += 60
        if header.startswith(prefix):
            return data[position : position + size]
        position += size + size % 2
    raise MMCoTError(StudyErrors.E722.format(path=path, reason="it is no Debian package"))
