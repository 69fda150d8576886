"""A corpus of ambiguous names whose pictures are signs: the words on a sign tell what the name
means, nothing else does. Names and sentences are those of `picture_set`; the test part shares
neither a sentence nor a sign's words with training.
"""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from spacy_mmcot.types import Split

from .picture_set import POSTS, Drawing, list_posts, make_post

# What signs about a thing of each label say.
WORDS: dict[Split, dict[str, str]] = {
    "train": {
        "PERSON": "birthday girl, my teacher, the mayor, lead singer, actress, doctor, student, "
        "bus driver, team captain, nurse, author, best friend",
        "PLACE": "airport, city limits, town hall, beach, river, harbour, railway station, hotel, "
        "national park, museum, bridge, main street",
        "ANIMAL": "zoo, do not feed, wildlife, bird nest, vet, safari, aquarium, puppy, feathers, "
        "kennel, claws, wild birds",
        "FOOD": "bakery, fresh fruit, menu, recipe, delicious, kitchen, sweet pie, grocery, wine, "
        "dessert, breakfast, jam",
        "VEHICLE": "garage, car wash, engine, parking, horsepower, test drive, wheels, motor show, "
        "speed limit, tyres, fuel, racing",
        "PRODUCT": "laptop, smartphone, software update, headphones, battery, keyboard, download, "
        "wifi, charger, screen, app store, printer",
    },
    "test": {
        "PERSON": "bride, dancer, professor, goalkeeper, chef, painter, grandmother, lawyer",
        "PLACE": "village, county, capital, mountain trail, square, island, border, tourist office",
        "ANIMAL": "animal shelter, habitat, endangered species, paws, pet clinic, cage, horns, fur",
        "FOOD": "restaurant, dinner, tasty, vegetables, cooking class, cheese, lunch, ice cream",
        "VEHICLE": "dealership, gearbox, auto repair, brakes, highway, mechanic, diesel, trucks",
        "PRODUCT": "tablet, computer shop, gadgets, usb cable, electronics, webcam, laser, monitor",
    },
}
_COLOURS = ("navy", "darkgreen", "maroon", "black", "indigo", "saddlebrown", "teal", "firebrick")
_SIZE = (320, 160)


def write_sign_set(folder: Path, *, seed: int = 1) -> Path:
    """Write the corpus and return the path of its posts.jsonl. Equal arguments give equal bytes."""
    rng = random.Random(seed)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for split in POSTS:
        for name, label in list_posts(split, rng):
            drawing = _draw_sign(rng.choice(WORDS[split][label].split(", ")), rng)
            (folder / "pictures" / drawing.file).write_bytes(drawing.content)
            lines.append(make_post(len(lines), name, label, drawing, split, rng))
    path = folder / "posts.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _draw_sign(words: str, rng: random.Random) -> Drawing:
    """A sign with the words, of any colour, case, size and slant."""
    image = PIL.Image.new("RGB", _SIZE, rng.choice(_COLOURS))
    shown = rng.choice((words, words.upper(), words.title()))
    most = 1.6 * _SIZE[0] / len(words)
    font = PIL.ImageFont.load_default(min(most, 56) * rng.uniform(0.7, 0.95))
    place = (_SIZE[0] / 2, _SIZE[1] * rng.uniform(0.3, 0.7))
    PIL.ImageDraw.Draw(image).text(place, shown, fill="white", font=font, anchor="mm")
    image = image.rotate(rng.uniform(-6, 6), PIL.Image.Resampling.BICUBIC, fillcolor="white")
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    content = encoded.getvalue()
    return Drawing(f"{hashlib.sha256(content).hexdigest()[:12]}.png", words, content)
