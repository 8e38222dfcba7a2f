"""A data set of eight drawn shapes and the smallest configuration of every stage."""

import io
import json
import tarfile

import pytest
import torch
from PIL import Image, ImageDraw

from modules.training import dataset, stages
from modules.training.config import (
    AutoencoderConfig,
    CaptionConfig,
    DataConfig,
    DiffusionConfig,
    LoopConfig,
    TrainingConfig,
)

SIZE = 32
SHAPES = {
    "1f534": ("red circle", 4, "ellipse", (220, 40, 40)),
    "1f7e5": ("red square", 4, "rectangle", (210, 50, 30)),
    "1f535": ("blue circle", 3, "ellipse", (40, 90, 220)),
    "1f7e6": ("blue square", 3, "rectangle", (50, 80, 200)),
    "1f7e2": ("green circle", 3, "ellipse", (40, 160, 60)),
    "1f7e9": ("green square", 4, "rectangle", (60, 150, 50)),
    "1f7e1": ("yellow circle", 4, "ellipse", (240, 210, 50)),
    "1f44b": ("waving hand", 1, "ellipse", (250, 200, 90)),
}


def shape(kind, colour, size=(64, 64)):
    picture = Image.new("RGBA", size)
    pen = ImageDraw.Draw(picture)
    getattr(pen, kind)((8, 8, 55, 55), fill=(*colour, 255))
    getattr(pen, kind)((20, 20, 36, 36), fill=(255, 255, 255, 255))
    return picture


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def records():
    found = [
        {"hexcode": code.upper(), "label": label, "group": group, "tags": [label.split()[0]]}
        for code, (label, group, _, _) in SHAPES.items()
    ]
    found[-1]["skins"] = [{"hexcode": "1F44B-1F3FF", "label": "waving hand: dark skin tone", "tone": 5}]
    return [*found, {"hexcode": "1F1E6", "label": "regional indicator A"}]


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """Archives laid out like those of the two packages: pictures, labels."""
    folder = tmp_path_factory.mktemp("packages")
    pictures, labels = folder / "pictures.tgz", folder / "labels.tgz"
    with tarfile.open(pictures, "w:gz") as tar:
        for code, (_, _, kind, colour) in SHAPES.items():
            buffer = io.BytesIO()
            shape(kind, colour, (64, 68)).save(buffer, "WEBP", lossless=True)
            add(tar, f"package/assets/{code}-fe0f.webp", buffer.getvalue())
        buffer = io.BytesIO()
        shape("ellipse", (90, 60, 30)).save(buffer, "WEBP", lossless=True)
        add(tar, "package/assets/1f44b-1f3ff.webp", buffer.getvalue())
        add(tar, "package/assets/ffff.webp", buffer.getvalue())
        add(tar, "package/README.md", b"not a picture")
    with tarfile.open(labels, "w:gz") as tar:
        add(tar, "package/en/data.json", json.dumps(records()).encode())
    return pictures, labels


@pytest.fixture(scope="session")
def archive(packages, tmp_path_factory):
    """The prepared data."""
    target = tmp_path_factory.mktemp("data") / "emoji-32.zip"
    dataset.prepare(target, SIZE, 90, packages)
    return target


@pytest.fixture(scope="session")
def data(archive):
    return dataset.load(archive)


def loop_config(**changes):
    values = {"steps": 4, "batch": 4, "lr": 1e-3, "warmup": 2, "ema": 0.9, "sample_every": 100, "log_every": 1}
    return LoopConfig(**{**values, **changes})


@pytest.fixture(scope="session")
def config():
    """Every stage at its smallest: latents of 4x8x8, four steps."""
    return TrainingConfig(
        DataConfig(size=SIZE, held_out=0.3),
        AutoencoderConfig(
            loop_config(), block_out_channels=(16, 24, 32), norm_num_groups=4, latent_channels=4, linear_start=8
        ),
        DiffusionConfig(
            loop_config(), CaptionConfig(placed=0.5), draws=3, wordings=2, block_out_channels=(32, 32),
            attention=(False, True), heads=2, text_width=32, text_layers=1, text_heads=2, vocabulary=560, positions=24,
            sample_steps=2, text_warmup=3, text_warmup_batch=4, grid=("red circle", "a blue square"),
        ),
    )


@pytest.fixture(scope="session")
def trained(config, archive, tmp_path_factory):
    """A workspace in which every stage has run."""
    space = stages.Workspace(archive, tmp_path_factory.mktemp("run"), torch.device("cpu"))
    assert stages.train_autoencoder(config, space)
    stages.cache_latents(config, space)
    assert stages.train_diffusion(config, space)
    return space


@pytest.fixture
def source():
    return torch.Generator().manual_seed(0)
