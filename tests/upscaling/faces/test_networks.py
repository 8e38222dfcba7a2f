import pickle

import numpy as np
import pytest
import torch

from modules.core.errors import InvalidModel, OutOfMemory
from modules.library.face_restorers import CODEFORMER, GFPGAN
from modules.library.files import FACE, ModelFile
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.upscaling.faces.networks import COMPONENT, PARSENET, RETINAFACE, FaceShelf, load
from tests.upscaling.faces.small import SIDE, codeformer, parsenet, retinaface, seeded, waves
from tests.upscaling.small import compact, needs

pytestmark = needs("spandrel")
SHAPES = {CODEFORMER: codeformer, RETINAFACE: retinaface, PARSENET: parsenet}


def model_file(path):
    return ModelFile(str(path), path.name, path.name, FACE, path.stat().st_size, path.stat().st_mtime)


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("wrapped", ["params_ema", "", "module."])
def test_files_are_read_as_they_are_published(tmp_path, kind, wrapped):
    state = seeded(SHAPES[kind]())
    content = {wrapped: state} if wrapped == "params_ema" else {wrapped + name: value for name, value in state.items()}
    module = load(saved(tmp_path / "a.pth", content), kind).modules[COMPONENT]
    own = module.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items())
    assert not module.training and not any(weight.requires_grad for weight in module.parameters())
    assert all(not tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))


def test_half_precision_files_compute_in_float32(tmp_path):
    state = {name: value.half() for name, value in seeded(codeformer()).items()}
    module = load(saved(tmp_path / "a.pth", state), CODEFORMER).modules[COMPONENT]
    with torch.inference_mode():
        assert module(waves(SIDE), 0.5).dtype == torch.float32


def lacking(name):
    return {key: value for key, value in seeded(codeformer()).items() if key != name}


@pytest.mark.parametrize("kind, state, words", [
    (CODEFORMER, compact(2), "no file of CodeFormer"), (GFPGAN, compact(2), "no file of GFPGAN"),
    (RETINAFACE, seeded(parsenet()), "no file of RetinaFace"), (PARSENET, seeded(codeformer()), "no file of ParseNet"),
    (CODEFORMER, lacking("encoder.blocks.4.conv2.bias"), "damaged.*encoder.blocks.4.conv2.bias|damaged.*Error"),
    (CODEFORMER, lacking("encoder.blocks.3.conv.weight"), "damaged"),
    (CODEFORMER, lacking("ft_layers.0.linear1.weight"), "damaged"),
    (CODEFORMER, seeded(codeformer()) | {"generator.blocks.12.weight": torch.full((3, 32, 3, 3), torch.nan)}, "NaN"),
    (CODEFORMER, seeded(codeformer()) | {"feat_emb.bias": torch.zeros(3)}, "damaged"),
    (GFPGAN, {"stylegan_decoder.style_mlp.1.weight": torch.zeros(2, 2), "toRGB.0.weight": torch.zeros(3, 2, 1, 1)},
     "damaged"),
])
def test_a_file_of_another_kind_or_with_a_part_missing_is_refused(tmp_path, kind, state, words):
    with pytest.raises(InvalidModel, match=f"(?s)a.pth.*({words})"):
        load(saved(tmp_path / "a.pth", state), kind)


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [
    b"", b"\x80\x02" + b"x" * 50, pickle.dumps({"params_ema": Evil()}, 2), pickle.dumps([1, 2], 2),
    b"PK\x03\x04" + bytes(90)])
def test_damaged_files_and_those_with_code_are_refused(tmp_path, content, capsys):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(InvalidModel):
        load(path, CODEFORMER)
    assert capsys.readouterr().out == ""


def test_a_truncated_file_is_refused(tmp_path):
    path = saved(tmp_path / "a.pth", seeded(parsenet()))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InvalidModel, match="a.pth"):
        load(path, PARSENET)


def test_networks_are_kept_and_a_new_file_is_read_anew(tmp_path):
    models = Models(1 << 30)
    shelf = FaceShelf(models, Placement())
    path = saved(tmp_path / "a.pth", seeded(parsenet()))
    first = shelf.run(model_file(path), PARSENET, lambda network: network)
    assert shelf.run(model_file(path), PARSENET, lambda network: network) is first and len(models.keys()) == 1
    saved(path, {"params": seeded(parsenet(), 1), "more": torch.zeros(10)})
    assert shelf.run(model_file(path), PARSENET, lambda network: network) is not first


def test_where_memory_ends_it_is_tried_once_more(tmp_path):
    shelf = FaceShelf(Models(1 << 30), Placement())
    file = model_file(saved(tmp_path / "a.pth", seeded(parsenet())))
    tries = []

    def call(network, most):
        tries.append(1)
        if len(tries) <= most:
            raise torch.OutOfMemoryError("out of memory")
        return len(tries)

    assert shelf.run(file, PARSENET, lambda network: call(network, 1)) == 2
    tries.clear()
    with pytest.raises(OutOfMemory, match="ParseNet"):
        shelf.run(file, PARSENET, lambda network: call(network, 9))
    assert len(tries) == 2
    with pytest.raises(ZeroDivisionError):
        shelf.run(file, PARSENET, lambda network: 1 / 0)


@pytest.mark.slow
def test_gfpgan_is_spandrel_s_and_the_same_face_every_time(tmp_path):
    from modules.upscaling.architectures import spandrel

    spandrel()
    from spandrel.architectures.GFPGAN import GFPGAN as Theirs

    torch.manual_seed(0)
    theirs = Theirs().eval()
    path = saved(tmp_path / "GFPGANv1.4.pth", {"params_ema": theirs.state_dict()})
    ours = load(path, GFPGAN).modules[COMPONENT]
    x = waves(512)
    with torch.inference_mode():
        one, two = ours(x, 0.5), ours(x, 0.0)
        expected = theirs(x, return_rgb=False, randomize_noise=False)[0]
    assert ours.side == 512 and torch.equal(one, two) and np.isfinite(one.numpy()).all()
    torch.testing.assert_close(one, expected)
