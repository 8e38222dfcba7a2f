import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modules.core.errors import InvalidModel
from modules.upscaling.architectures import spandrel
from modules.upscaling.networks import load_network
from tests.upscaling.small import compact, esrgan, needs, picture

pytestmark = needs("spandrel")
CPU = torch.device("cpu")


@pytest.fixture
def saved(tmp_path):
    """Return a function that writes what it is given as ``.pth`` or ``.safetensors``."""
    def save(content, name="net.pth"):
        path = tmp_path / name
        save_file(content, path) if name.endswith(".safetensors") else torch.save(content, path)
        return path
    return save


@pytest.mark.parametrize("name, state, scale, architecture", [
    ("a.safetensors", compact(2), 2, "Compact"), ("b.pth", compact(3), 3, "Compact"), ("c.pth", esrgan(), 4, "ESRGAN"),
])
def test_a_network_runs_as_spandrel_runs_it(saved, name, state, scale, architecture):
    network = load_network(saved(state, name))
    assert network.scale == scale and network.descriptor.architecture.id == architecture
    pixels = picture(14, 10).astype(np.float32) / 255
    reference = spandrel().MAIN_REGISTRY.load(dict(state))
    expected = reference(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    np.testing.assert_array_equal(network.run(pixels, CPU), expected[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("wrapped", [
    lambda state: {"params_ema": state}, lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {f"module.{key}": value for key, value in state.items()},
])
def test_weights_are_found_in_what_training_wraps_them_in(saved, wrapped):
    assert load_network(saved(wrapped(esrgan()))).scale == 4


def test_a_network_for_grey_pictures_sees_each_colour(saved):
    state = compact(2)
    state["body.0.weight"] = state["body.0.weight"][:, :1].clone()
    state["body.4.weight"], state["body.4.bias"] = state["body.4.weight"][:4].clone(), state["body.4.bias"][:4].clone()
    network = load_network(saved(state))
    pixels = picture(9, 8).astype(np.float32) / 255
    expected = [network.descriptor(torch.from_numpy(pixels[None, None, :, :, i]).contiguous())[0, 0] for i in range(3)]
    np.testing.assert_allclose(network.run(pixels, CPU), torch.stack(expected, 2).numpy(), atol=1e-6)


class Code:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content, words", [
    ({"a.weight": torch.ones(3)}, "no upscaler"),
    (compact() | {"body.8000.weight": torch.ones(3)}, "a layer 8,000"), ([1, 2], "no named weights"),
    ({key: value for key, value in compact().items() if key != "body.2.weight"}, "damaged|no upscaler"),
    (compact() | {"body.0.bias": torch.full((8,), float("nan"))}, "NaN"),
])
def test_what_is_no_upscaler_is_refused_by_name(saved, content, words):
    with pytest.raises(InvalidModel, match=f"net.pth.*({words})"):
        load_network(saved(content))


def test_a_pickle_with_code_is_not_run(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"params": Code()}))
    with pytest.raises(InvalidModel, match="evil.pth"):
        load_network(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_a_truncated_file_is_refused(saved, name):
    path = saved(compact(), name)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidModel, match="damaged"):
        load_network(path)


def test_a_file_that_is_gone_says_so(tmp_path):
    with pytest.raises(InvalidModel, match="no longer there"):
        load_network(tmp_path / "gone.pth")


def test_memory_is_estimated_from_the_weights(saved):
    assert load_network(saved(compact(2))).bytes_per_pixel() == 4 * 12 * 4 * 4
