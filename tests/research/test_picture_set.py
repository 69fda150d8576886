"""The corpus of ambiguous names: what its parts share, and what decides."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner

from research import picture_set, sign_set
from research.__main__ import app
from spacy_mmcot.types import Post


def png(colour: tuple[int, int, int], size: tuple[int, int] = (30, 20)) -> bytes:
    encoded = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(encoded, "PNG")
    return encoded.getvalue()


def write_package(path: Path, files: dict[str, bytes]) -> Path:
    """A file in the form of Debian's packages with these files under openclipart's folder."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./usr/share/openclipart/png/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    parts = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0"), ("data.tar.xz", data.getvalue())):
        parts += f"{name:16}{'0':12}{'0':6}{'0':6}{'100644':8}{len(content):<10}`\n".encode()
        parts += content + b"\n" * (len(content) % 2)
    path.write_bytes(parts)
    return path


# Pictures of a label; every third is another one of the subject before it.
EACH = 30


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files: dict[str, bytes] = {}
    for i, folders in enumerate(picture_set.FOLDERS.values()):
        for j in range(EACH):
            word = "abcdefghijklmnopqrstuvwxyz"[j % 20]
            files[f"{folders[j % len(folders)]}/thing{word}_{j}.png"] = png((40 * i, 8 * j, 9))
    food = picture_set.FOLDERS["FOOD"][0]
    files |= {
        f"{food}/copy_1.png": files[f"{food}/thinga_0.png"],
        f"{food}/menu_of_the_day.png": png((1, 2, 3)),
        f"{food}/broken_1.png": b"no picture",
        f"{food}/large_1.png": png((4, 5, 6), (900, 600)),
        "office/desk_1.png": png((7, 8, 9)),
        "signs_and_symbols/flags/africa/kenya_1.png": png((10, 11, 12)),
        "signs_and_symbols/flags/navy/alpha_1.png": png((13, 14, 15)),
    }
    return write_package(tmp_path_factory.mktemp("package") / "openclipart.deb", files)


@pytest.fixture(scope="module")
def folder(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    picture_set.write_picture_set(folder, package, seed=3)
    return folder


def read_posts(folder: Path) -> list[Post]:
    lines = (folder / "posts.jsonl").read_text("utf-8").splitlines()
    return [Post.model_validate_json(line) for line in lines]


def name_of(post: Post) -> str:
    (entity,) = post.entities or []
    return post.text[entity.start : entity.end]


def label_of(post: Post) -> str:
    (entity,) = post.entities or []
    return entity.label


def test_text_tells_nothing(folder: Path) -> None:
    posts = read_posts(folder)
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for post in posts:
        counts[post.split, name_of(post)][label_of(post)] += 1
    assert len({name for _, name in counts}) > 50
    for (_, name), labels in counts.items():
        assert len(labels) > 1, name
        assert len(set(labels.values())) == 1, name
    for split, patterns in picture_set.PATTERNS.items():
        part = [post for post in posts if post.split == split]
        assert {post.text.replace(name_of(post), "{}") for post in part} == set(patterns)


def test_the_test_part_has_pictures_and_pairs_of_its_own(folder: Path) -> None:
    posts = read_posts(folder)
    train = [post for post in posts if post.split == "train"]
    test = [post for post in posts if post.split == "test"]
    assert len(train) + len(test) == len(posts) and len(test) > 300

    def digest(post: Post, mirrored: bool = False) -> bytes:
        with PIL.Image.open(folder / str(post.image)) as image:
            turned = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
            return hashlib.sha256(turned.tobytes()).digest()

    tested = {digest(post) for post in test} | {digest(post, mirrored=True) for post in test}
    assert not {digest(post) for post in train} & tested
    pairs = [{(name_of(post), post.domain) for post in part} for part in (train, test)]
    assert not pairs[0] & pairs[1]


def test_what_is_taken_from_the_package(package: Path) -> None:
    drawings = picture_set.read_archive(package)
    assert {label: len(each) for label, each in drawings.items()} == {
        **dict.fromkeys(picture_set.FOLDERS, EACH),
        **{"FOOD": EACH + 1, "PLACE": EACH + 1},
    }
    subjects = {drawing.subject for drawing in drawings["FOOD"]}
    assert "large" in subjects and not {"menu", "broken", "copy"} & subjects
    assert "kenya" in {drawing.subject for drawing in drawings["PLACE"]}
    [large] = [each for each in drawings["FOOD"] if each.subject == "large"]
    assert PIL.Image.open(io.BytesIO(large.content)).size == (320, 213)


def test_the_seed_decides(package: Path, tmp_path: Path) -> None:
    def write(name: str, seed: int) -> dict[str, bytes]:
        words = ["picture-set", tmp_path / name, "--archive", package, "--seed", seed]
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == 0, done.output
        assert "posts -> " in done.output
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files}

    first = write("a", 1)
    assert first == write("b", 1)
    assert first["posts.jsonl"] != write("c", 2)["posts.jsonl"]


def test_signs_of_the_test_part_have_words_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        done = CliRunner().invoke(app, ["sign-set", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    posts = read_posts(tmp_path / "a")
    assert posts == read_posts(tmp_path / "b")
    words = {split: {p.domain for p in posts if p.split == split} for split in ("train", "test")}
    assert len(words["train"]) == 72 and len(words["test"]) == 48
    assert not words["train"] & words["test"]
    for post in posts:
        assert str(post.domain) in sign_set.WORDS[post.split][label_of(post)].split(", ")
    with PIL.Image.open(tmp_path / "a" / str(posts[0].image)) as image:
        assert len(image.getcolors(1 << 20) or ()) > 2


@pytest.mark.parametrize("content", [None, b"", b"!<arch>\n", b"PK" + bytes(100)])
def test_what_is_no_package(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "other.deb"
    if content is not None:
        path.write_bytes(content)
    done = CliRunner().invoke(app, ["picture-set", str(tmp_path / "set"), "--archive", str(path)])
    assert done.exit_code == 1
    assert done.stderr.startswith("✘ [E722]") and "other.deb" in done.stderr
    assert not (tmp_path / "set").exists()


def test_a_package_that_is_another_one_or_not_there(package: Path, tmp_path: Path) -> None:
    for address, reason in (
        (package.as_uri(), "SHA-256"),
        ((tmp_path / "none.deb").as_uri(), "No such file"),
        ("nonsense", "unknown url type"),
    ):
        words = ["picture-set", str(tmp_path / "set"), "--address", address]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1
        assert done.stderr.startswith("✘ [E721]") and reason in done.stderr
        assert not list(tmp_path.rglob("*.deb"))
