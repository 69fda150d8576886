"""Vision models: shapes, families, what is trained and what is not, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import spacy
import torch
from PIL import Image
from spacy.tokens import Doc
from thinc.api import Adam
from tiny import make_vision
from transformers import (
    AutoConfig,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

from spacy_mmcot.errors import MMCoTError
from spacy_mmcot.model.bridge import torch_shim
from spacy_mmcot.model.vision import (
    HFVision,
    VisionModel,
    get_patch_grid,
)
from spacy_mmcot.pictures.read import PicturePolicy
from spacy_mmcot.types import ID_KEY, IMAGE_KEY

SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 50,
}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "clip": lambda: CLIPModel(CLIPConfig(vision_config=SMALL, text_config=TEXT)),
    "siglip": lambda: SiglipModel(SiglipConfig(vision_config=SMALL, text_config=TEXT)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SMALL)),
    "vit": lambda: ViTModel(ViTConfig(**SMALL)),
}


@pytest.fixture(scope="module", params=MODELS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model of each family that sees."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    MODELS[request.param]().save_pretrained(folder)
    return str(folder)


def picture(folder: Path, colour: tuple[int, int, int], name: str) -> str:
    Image.new("RGB", (60, 40), colour).save(folder / name)
    return str(folder / name)


def docs(*images: str | bytes | None) -> list[Doc]:
    nlp = spacy.blank("en")
    made = []
    for i, image in enumerate(images):
        doc = nlp.make_doc(f"post {i}")
        doc.user_data[ID_KEY] = f"post-{i}"
        if image is not None:
            doc.user_data[IMAGE_KEY] = image  # type: ignore[index]
        made.append(doc)
    return made


def ready(model: VisionModel) -> VisionModel:
    model.initialize()
    return model


def test_every_family_gives_its_patches(source: str, tmp_path: Path) -> None:
    model = ready(HFVision(source))
    red, blue = (
        picture(tmp_path, (250, 0, 0), "red.png"),
        picture(tmp_path, (0, 0, 250), "blue.png"),
    )
    found = model.predict(docs(red, None, blue, red))
    assert found.rows == [0, -1, 1, 0]
    assert found.patches.shape == (2, 16, 24)
    assert get_patch_grid(model) == (4, 4)
    assert model.get_dim("nO") == 24
    assert not torch.allclose(found.patches[0], found.patches[1])


def test_it_loads_from_its_own_bytes(source: str, tmp_path: Path) -> None:
    model = ready(HFVision(source))
    red = docs(picture(tmp_path, (250, 0, 0), "red.png"))
    again = HFVision("no/such/source").from_bytes(model.to_bytes())
    assert torch.equal(again.predict(red).patches, model.predict(red).patches)


def test_a_convolutional_family_too(tmp_path: Path) -> None:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", image_size=32
    )
    ResNetModel(config).save_pretrained(tmp_path / "resnet")
    model = ready(HFVision(str(tmp_path / "resnet")))
    found = model.predict(docs(picture(tmp_path, (9, 99, 9), "green.png")))
    rows, columns = get_patch_grid(model)
    assert found.patches.shape == (1, rows * columns, 16)


def test_a_model_of_text_alone_is_refused(bert_source: str) -> None:
    with pytest.raises(MMCoTError, match=r"E402.*picture"):
        HFVision(bert_source).initialize()


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MMCoTError, match="E402"):
        HFVision(str(tmp_path)).initialize()


def test_frozen_weights_stay(tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    ViTModel(ViTConfig(**SMALL)).save_pretrained(folder)
    model = ready(HFVision(str(folder)))
    module = torch_shim(model).module
    before = {name: weight.clone() for name, weight in module.named_parameters()}
    found, backprop = model.begin_update(docs(picture(tmp_path, (250, 0, 0), "red.png")))
    backprop(torch.ones_like(found.patches))
    model.finish_update(Adam(0.01))
    assert all(torch.equal(weight, before[n]) for n, weight in module.named_parameters())


def learner(policy: PicturePolicy | None = None) -> VisionModel:
    """A vision model whose weights are trained."""
    torch.manual_seed(1)
    return make_vision(policy)


def test_a_network_of_ones_own_learns(tmp_path: Path) -> None:
    model = ready(learner())
    batch = docs(*(picture(tmp_path, (i * 20, 90, 200 - i * 20), f"{i}.png") for i in range(8)))
    target = torch.linspace(-1, 1, 8)
    losses = []
    optimizer = Adam(0.01)
    for _ in range(100):
        found, backprop = model.begin_update(batch)
        error = found.patches.mean((1, 2)) - target
        losses.append(float((error**2).mean()))
        gradient = (error / error.numel())[:, None, None].expand_as(found.patches)
        backprop(gradient)
        model.finish_update(optimizer)
    assert losses[-1] < 0.5 * losses[0]


class Counting:
    """How many pictures went through a model's module."""

    def __init__(self, model: VisionModel):
        self.seen = 0
        torch_shim(model).module.register_forward_pre_hook(self._count)

    def _count(self, module: Any, inputs: tuple[torch.Tensor]) -> None:
        self.seen += len(inputs[0])


@pytest.fixture
def vit(tmp_path: Path) -> str:
    ViTModel(ViTConfig(**SMALL)).save_pretrained(tmp_path / "vit")
    return str(tmp_path / "vit")


def test_a_picture_is_seen_once_however_often_it_comes(vit: str, tmp_path: Path) -> None:
    model = ready(HFVision(vit))
    count = Counting(model)
    red = picture(tmp_path, (250, 0, 0), "red.png")
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(red).read_bytes())
    batch = docs(red, str(copy), Path(red).read_bytes(), red)
    first = model.predict(batch)
    assert first.rows == [0, 0, 0, 0]
    assert torch.equal(model.predict(batch).patches, first.patches)
    assert count.seen == 1


def test_features_of_other_weights_are_not_taken(tmp_path: Path) -> None:
    batch = docs(picture(tmp_path, (250, 0, 0), "red.png"))
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        ViTModel(ViTConfig(**SMALL)).save_pretrained(tmp_path / f"vit{seed}")
        models.append(ready(HFVision(str(tmp_path / f"vit{seed}"))))
    first, second = models
    before = first.predict(batch).patches
    after = first.from_bytes(second.to_bytes()).predict(batch).patches
    assert not torch.allclose(before, after)
    assert torch.equal(after, second.predict(batch).patches)


def test_a_step_of_training_makes_new_features(tmp_path: Path) -> None:
    model = ready(learner())
    batch = docs(picture(tmp_path, (250, 0, 0), "red.png"))
    before = model.predict(batch).patches
    found, backprop = model.begin_update(batch)
    backprop(torch.ones_like(found.patches))
    model.finish_update(Adam(0.01))
    assert not torch.allclose(model.predict(batch).patches, before)


def test_a_picture_that_changes_on_disk_is_seen_anew(tmp_path: Path) -> None:
    model = ready(learner())
    path = picture(tmp_path, (250, 0, 0), "red.png")
    before = model.predict(docs(path)).patches
    picture(tmp_path, (0, 250, 0), "red.png")
    assert not torch.allclose(model.predict(docs(path)).patches, before)


def test_one_warning_a_doc_and_the_others_keep_theirs(tmp_path: Path) -> None:
    model = ready(learner())
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    good = picture(tmp_path, (250, 0, 0), "red.png")
    with pytest.warns(UserWarning) as warned:
        found = model.predict(docs(str(broken), good, str(tmp_path / "none.png"), str(broken)))
    assert found.rows == [-1, 0, -1, -1]
    assert torch.equal(found.patches, model.predict(docs(good)).patches)
    messages = sorted(str(w.message) for w in warned)
    assert [message.split()[6] for message in messages] == ["post-0", "post-2", "post-3"]
    assert all("W400" in message for message in messages)


def test_or_it_raises(tmp_path: Path) -> None:
    policy = PicturePolicy(on_bad_image="raise")
    model = ready(learner(policy))
    with pytest.raises(MMCoTError, match=r"E406.*post-0.*missing"):
        model.predict(docs(str(tmp_path / "none.png")))


def test_more_pictures_than_go_through_at_once(tmp_path: Path) -> None:
    model = ready(learner())
    many = [picture(tmp_path, (i, 255 - i, 40), f"{i}.png") for i in range(70)]
    together = model.predict(docs(*many))
    assert together.rows == list(range(70))
    alone = ready(learner()).from_bytes(model.to_bytes())
    one = alone.predict(docs(many[66])).patches[0]
    numpy.testing.assert_allclose(together.patches[66], one, atol=1e-5)


def test_what_is_saved_names_its_config(vit: str) -> None:
    model = ready(HFVision(vit))
    kept = torch_shim(model).module.settings["config"]
    assert AutoConfig.for_model(**kept).hidden_size == 24
