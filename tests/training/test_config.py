import dataclasses

import pytest

from modules.core.errors import InvalidRequest
from modules.training import config
from modules.training.__main__ import CONFIGS
from modules.training.styles import STYLES


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_shipped_configurations_are_complete(name):
    read = config.read(CONFIGS / f"{name}.toml", config.TrainingConfig)
    assert read.data.size >= 128
    assert isinstance(read.autoencoder.block_out_channels, tuple)
    assert read.autoencoder.latent_channels == 16 and read.diffusion.loop.batch > 0


@pytest.mark.parametrize(("name", "kind"), [("lora", config.LoraTraining), ("embedding", config.EmbeddingTraining)])
def test_the_shipped_configurations_of_adapters_are_complete(name, kind):
    read = config.read(CONFIGS / f"{name}.toml", kind)
    assert read.style in STYLES and read.about.license == "MIT" and read.diffusion.loop.steps > 0


def test_integers_are_taken_as_floats_and_tables_nest():
    built = config.build(config.DiffusionConfig, {"loop": {"steps": 1, "batch": 2, "lr": 1}, "dropout": 1}, "diffusion")
    assert isinstance(built.dropout, float) and isinstance(built.loop.lr, float) and built.loop.steps == 1


@pytest.mark.parametrize(("values", "message"), [
    ({"loop": {"steps": 1, "batch": 2, "lr": 0.1}, "colour": 1}, "colour"),
    ({"loop": {"steps": "many", "batch": 2, "lr": 0.1}}, "loop.steps must be int"),
    ({"loop": {"steps": 1, "lr": 0.1}}, "batch"),
    ({"loop": {"steps": True, "batch": 2, "lr": 0.1}}, "must be int"),
])
def test_mistakes_are_named(values, message):
    with pytest.raises(InvalidRequest, match=message):
        config.build(config.AutoencoderConfig, values, "autoencoder")


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.DataConfig().size = 3
