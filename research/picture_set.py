"""A corpus in which the picture alone tells whether a name is a person or a place.

Every sentence appears as often with a picture of a person (PER) as with one of a landscape (LOC)
in each split, so text alone is right half of the time. Both kinds of picture are drawn in the same
colours and shifted to a random mean colour, so the mean colour is right half of the time too.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy
from PIL import Image, ImageDraw, ImageFilter

from spacy_mmcot.types import Entity, Post, Split

NAMES = (
    *("Victoria", "Jordan", "Sydney", "Florence"),
    *("Paris", "Georgia", "Austin", "Chelsea"),
)
PATTERNS = (
    "{} , always worth a second look",
    "There is more to {} than you think",
    "My favourite picture of {} so far",
    "Nothing beats {} in the morning light",
    "So this is {} , at last",
    "Thinking of {} again today",
    "Three years since I first saw {}",
    "Who else loves {} as much as I do ?",
    "Look at {} in the evening sun",
    "I could never get tired of {}",
    "Some more of {} for you all",
    "What a day , and {} in the middle of it",
)
SHARES: dict[Split, float] = {"train": 0.6, "dev": 0.2, "test": 0.2}
WIDTH, HEIGHT = 96, 72
# Drawn at twice the size and scaled down, which smooths the edges.
SCALE = 2
PALETTE = (
    *((58, 92, 140), (96, 150, 190), (150, 190, 200), (70, 120, 80), (130, 165, 90)),
    *((190, 180, 120), (205, 150, 90), (170, 95, 70), (120, 70, 60), (150, 110, 160)),
    *((95, 85, 100), (200, 170, 160)),
)

Colour = tuple[int, int, int]


def write_picture_set(folder: Path, *, seed: int = 1, posts: int = 400) -> Path:
    """Write the corpus and return the path of its posts.jsonl. Equal arguments give equal bytes.

    posts: an even number; each of the splits train, dev and test gets its share of the pairs.
    """
    rng = random.Random(seed)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = []
    planned = _plan(rng, posts // 2)
    for number, (split, pattern, name, label) in enumerate(planned, start=1):
        image = f"pictures/{number:04d}.png"
        draw_picture(rng, label).save(folder / image)
        start = pattern.index("{}")
        post = Post(
            id=f"picture-{number:04d}",
            text=pattern.format(name),
            entities=[Entity(start=start, end=start + len(name), label=label)],
            image=image,
            split=split,
            domain="synthetic",
        )
        lines.append(post.model_dump_json(exclude_none=True) + "\n")
    path = folder / "posts.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _plan(rng: random.Random, pairs: int) -> list[tuple[Split, str, str, str]]:
    """(split, pattern, name, label) of all posts, in an order that tells nothing."""
    planned = []
    sizes = {split: round(share * pairs) for split, share in SHARES.items()}
    sizes["train"] += pairs - sum(sizes.values())
    for split, size in sizes.items():
        for pattern, name in itertools.islice(_sentences(rng), size):
            planned += [(split, pattern, name, label) for label in ("PER", "LOC")]
    rng.shuffle(planned)
    return planned


def _sentences(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Rounds through names and patterns in which each comes about as often as any other."""
    names = rng.sample(NAMES, len(NAMES))
    patterns = rng.sample(PATTERNS, len(PATTERNS))
    # A shift at each round of the patterns, so that in time all pairs of the two come.
    return itertools.chain.from_iterable(
        [(pattern, names[(i + shift) % len(names)]) for i, pattern in enumerate(patterns)]
        for shift in itertools.count()
    )


def draw_picture(rng: random.Random, label: str) -> Image.Image:
    """A person for PER, a landscape for LOC, WIDTH x HEIGHT pixels in RGB."""
    image = _background(rng)
    draw = ImageDraw.Draw(image)
    (_draw_person if label == "PER" else _draw_landscape)(rng, draw)
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.7)))
    pixels = numpy.asarray(small, dtype="float64")
    # The same for both kinds: what they are made of must not show in their mean.
    pixels += [rng.uniform(100, 155) for _ in range(3)] - pixels.mean(axis=(0, 1))
    noise = numpy.random.default_rng(rng.getrandbits(32)).normal(size=pixels.shape)
    pixels += noise * rng.uniform(3, 12)
    return Image.fromarray(pixels.round().clip(0, 255).astype("uint8"))


def _background(rng: random.Random) -> Image.Image:
    """Two colours that run into each other, with a few blurred spots."""
    width, height = WIDTH * SCALE, HEIGHT * SCALE
    top, bottom = (numpy.array(colour, dtype="float64") for colour in rng.sample(PALETTE, 2))
    ramp = numpy.linspace(0, 1, height)[:, None, None]
    rows = (1 - ramp) * top + ramp * bottom
    image = Image.fromarray(rows.repeat(width, axis=1).astype("uint8"))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(2, 5)):
        _disc(draw, rng.uniform(0, width), rng.uniform(0, height), rng.uniform(6, 22), _any(rng))
    return image.filter(ImageFilter.GaussianBlur(4 * SCALE))


def _draw_person(rng: random.Random, draw: ImageDraw.ImageDraw) -> None:
    """Shoulders, a head, two eyes and a mouth."""
    width, height = WIDTH * SCALE, HEIGHT * SCALE
    clothes, face, features = rng.sample(PALETTE, 3)
    radius = rng.uniform(0.17, 0.27) * height
    x, y = rng.uniform(0.25, 0.75) * width, rng.uniform(0.32, 0.48) * height
    chest = rng.uniform(1.5, 2.1) * radius
    shoulder = y + rng.uniform(1.2, 1.4) * radius
    draw.ellipse((x - chest, shoulder, x + chest, shoulder + 2.4 * chest), fill=clothes)
    _disc(draw, x, y, radius, face)
    # What the eyes are drawn in must stand out from the face.
    features = _darker(features) if sum(face) > 330 else _lighter(features)
    turn = rng.uniform(-0.15, 0.15) * radius
    for side in (-0.4, 0.4):
        _disc(draw, x + turn + side * radius, y - 0.15 * radius, 0.15 * radius, features)
    mouth = (x + turn - 0.35 * radius, y + 0.1 * radius, x + turn + 0.35 * radius, y + 0.6 * radius)
    draw.arc(mouth, 20, 160, fill=features, width=max(1, round(0.1 * radius)))


def _draw_landscape(rng: random.Random, draw: ImageDraw.ImageDraw) -> None:
    """A sun, two or three hills, one behind the other, and one to three houses."""
    width, height = WIDTH * SCALE, HEIGHT * SCALE
    _disc(
        draw,
        rng.uniform(0.1, 0.9) * width,
        rng.uniform(0.1, 0.35) * height,
        rng.uniform(0.07, 0.14) * height,
        _any(rng),
    )
    hills = rng.sample(PALETTE, rng.randint(2, 3))
    for i, colour in enumerate(hills):
        top = (0.42 + 0.16 * i + rng.uniform(-0.05, 0.05)) * height
        x, half = rng.uniform(0, width), rng.uniform(0.5, 0.9) * width
        draw.ellipse((x - half, top, x + half, top + 2 * height), fill=colour)
        draw.rectangle((0, top + 0.15 * height, width, height), fill=colour)
    for _ in range(rng.randint(1, 3)):
        wall, roof, window = rng.sample(PALETTE, 3)
        side = rng.uniform(0.13, 0.22) * height
        x, y = rng.uniform(0.05, 0.85) * width, rng.uniform(0.6, 0.78) * height
        draw.rectangle((x, y, x + 1.3 * side, y + side), fill=wall)
        tip = (x + 0.65 * side, y - 0.7 * side)
        draw.polygon(((x - 0.15 * side, y), tip, (x + 1.45 * side, y)), fill=roof)
        pane = (x + 0.2 * side, y + 0.25 * side, x + 0.5 * side, y + 0.55 * side)
        draw.rectangle(pane, fill=window)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _any(rng: random.Random) -> Colour:
    return rng.choice(PALETTE)


def _darker(colour: Colour) -> Colour:
    return tuple(value // 3 for value in colour)  # type: ignore[return-value]


def _lighter(colour: Colour) -> Colour:
    return tuple(255 - (255 - value) // 3 for value in colour)  # type: ignore[return-value]
