import pytest

from modules.core.axes import AXES
from tests.fixtures.fake_engine import make_app, write_stand_in_checkpoint


@pytest.fixture
def app(tmp_path):
    app = make_app(tmp_path)
    yield app
    app.close()


def choices(app, label, tab="txt2img"):
    return app.choices(next(axis for axis in app.axes(tab) if axis.label == label))


def test_lists_have_what_there_is_now(app):
    assert choices(app, "Checkpoint name") == ("stand-in.safetensors",)
    write_stand_in_checkpoint(app.folders.checkpoints[0], "other.safetensors")
    assert len(choices(app, "Checkpoint name")) == 2 == len(choices(app, "Refiner checkpoint"))
    assert choices(app, "VAE")[:2] == ("Automatic", "None") and "Karras" in choices(app, "Schedule type")
    assert "Latent" in choices(app, "Hires upscaler") and "Latent" not in choices(app, "[Setting] Upscaler for img2img")
    assert choices(app, "RNG source") == ("CPU", "NV", "GPU") and choices(app, "Tiling") == ("False", "True")
    app.settings.update({"hide_samplers": ["Euler"]})
    assert "Euler" not in choices(app, "Sampler") and "Euler a" in choices(app, "Sampler")


def test_every_axis_has_its_list(app):
    assert all(isinstance(app.choices(axis), tuple) for axis in AXES)
