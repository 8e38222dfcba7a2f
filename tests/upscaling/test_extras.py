import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.errors import InvalidModel, InvalidRequest, NotFound, OutOfMemory, PluginFailed, Skipped
from modules.core.extras import Extras, Source
from modules.core.settings import Settings
from modules.imaging.resize import RESAMPLERS
from modules.library import infotext
from modules.library.inputs import Inputs
from modules.library.sixteen_bit import DeepImage, png
from modules.plugin import Plugin
from modules.plugin.hooks import Active
from modules.plugin.params import NoParams
from modules.upscaling.extras import Bench, extended, perform
from tests.fixtures.tiny_x4 import write_tiny_x4
from tests.upscaling.small import compact, needs, picture, shelf_of

INFOTEXT = ('a cat\nNegative prompt: a dog\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 512x768, '
            'Model hash: 0123456789, Lora hashes: "a: 1, b: 2"')


class Watch:
    """Notes what it is told."""

    def __init__(self):
        self.pictures, self.steps, self.begun, self.left = [], [], [], 10**9

    def check(self):
        pass

    def stopping(self):
        self.left -= 1
        return self.left < 0

    def batch(self, first, pictures):
        self.begun.append((first, pictures))

    def step(self, done, total):
        self.steps.append((done, total))

    def picture(self, picture):
        self.pictures.append(picture)


class Failing:
    name = "failing"

    def __init__(self, error):
        self.error = error

    def upscale(self, image, width, height):
        raise self.error


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path / "inputs")


@pytest.fixture
def watch():
    return Watch()


def source(inputs, width=20, height=10, seed=0, **about):
    return Source(inputs.add(Image.fromarray(picture(width, height, seed))).id, **about)


def test_a_picture_is_enlarged_and_its_infotext_carried_on(inputs, watch):
    one = source(inputs, name="holiday.v2.png", infotext=INFOTEXT)
    extras = Extras((one,), upscaler_1="Lanczos", upscaling_resize=2)
    assert perform(extras, Bench(inputs, RESAMPLERS), watch, frozenset()).complete
    (made,) = watch.pictures
    expected = Image.fromarray(picture(20, 10)).resize((40, 20), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(made.image), np.asarray(expected))
    assert (made.index, made.basename, watch.begun) == (0, "holiday.v2", [(0, 1)])
    text = infotext.format(made.prompt, made.negative_prompt, made.parameters)
    assert text == f"{INFOTEXT}, Postprocess upscale by: 2, Postprocess upscaler: Lanczos"


@pytest.mark.parametrize("name, taken", [("x4 tiny", {"x4 upscaler steps": "1", "x4 upscaler tile": "64"}),
                                         ("Lanczos", {})])
def test_settings_of_a_diffusion_upscaler_are_written_where_one_took_part(inputs, watch, tmp_path, name, taken):
    write_tiny_x4(tmp_path / "models/ESRGAN/x4 tiny.safetensors")
    settings = Settings(x4_upscaler_steps=1, x4_upscaler_tile=64, img2img_extra_noise=0.1)
    extras = Extras((source(inputs, 8, 8),), upscaler_1=name, upscaling_resize=2)
    bench = Bench(inputs, {**RESAMPLERS, **shelf_of(tmp_path)}, settings=settings)
    perform(extras, bench, watch, frozenset())
    written = watch.pictures[0].parameters
    assert {key: value for key, value in written.items() if not key.startswith("Postprocess ")} == taken


def test_an_infotext_that_was_extended_before_has_the_last_word(inputs):
    again = extended(f"{INFOTEXT}, Postprocess upscaler: Nearest", {"Postprocess upscaler": "Lanczos"})
    assert again.parameters["Postprocess upscaler"] == "Lanczos" and again.parameters["Size"] == "512x768"
    assert extended("", {"a": "b"}).parameters == {"a": "b"}


def test_two_upscalers_are_mixed(inputs, watch):
    extras = Extras((source(inputs),), upscaler_1="Nearest", upscaler_2="Bicubic", upscaling_resize=3,
                    extras_upscaler_2_visibility=0.3)
    perform(extras, Bench(inputs, RESAMPLERS), watch, frozenset())
    first, second = (Image.fromarray(picture(20, 10)).resize((60, 30), kind)
                     for kind in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC))
    made = np.asarray(watch.pictures[0].image).astype(int)
    assert np.abs(made - np.asarray(Image.blend(first, second, 0.3))).max() <= 1
    assert watch.steps == [(0, 2), (1, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("crop, size", [(True, (30, 30)), (False, (60, 30))])
def test_to_a_size(inputs, watch, crop, size):
    extras = Extras((source(inputs),), upscaler_1="Lanczos", resize_mode=1, upscaling_resize_w=30,
                    upscaling_resize_h=30, upscaling_crop=crop)
    perform(extras, Bench(inputs, RESAMPLERS), watch, frozenset())
    whole = Image.fromarray(picture(20, 10)).resize((60, 30), Image.Resampling.LANCZOS)
    expected = whole.crop((15, 0, 45, 30)) if crop else whole
    np.testing.assert_array_equal(np.asarray(watch.pictures[0].image), np.asarray(expected))
    assert watch.pictures[0].image.size == size


def test_without_an_upscaler_a_picture_stays_as_it_is(inputs, watch):
    perform(Extras((source(inputs, infotext="a cat"),)), Bench(inputs, RESAMPLERS), watch, frozenset())
    np.testing.assert_array_equal(np.asarray(watch.pictures[0].image), picture(20, 10))
    assert watch.pictures[0].prompt == "a cat" and not watch.pictures[0].parameters


def test_one_broken_picture_of_many_is_left_out(inputs, watch):
    good = [source(inputs, seed=i, name=f"{i}.png") for i in range(4)]
    broken = source(inputs, seed=9, name="broken.png")
    inputs.path(broken.image).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    gone = Source("f" * 32, "gone.png")
    extras = Extras((*good[:2], broken, gone, *good[2:]), upscaler_1="Lanczos")
    outcome = perform(extras, Bench(inputs, RESAMPLERS), watch, frozenset())
    assert outcome.complete and [made.index for made in watch.pictures] == [0, 1, 4, 5]
    assert [text.split(" was")[0] for text in outcome.warnings] == ["broken.png", "gone.png"]
    for alone, error in ((broken, InvalidRequest), (gone, NotFound)):
        with pytest.raises(error):
            perform(Extras((alone,)), Bench(inputs, RESAMPLERS), watch, frozenset())


def test_what_is_wrong_with_an_upscaler_ends_the_job(inputs, watch):
    extras = Extras((source(inputs), source(inputs, seed=1)), upscaler_1="failing")
    with pytest.raises(InvalidModel):
        perform(extras, Bench(inputs, {"failing": Failing(InvalidModel("bad"))}), watch, frozenset())
    outcome = perform(extras, Bench(inputs, {"failing": Failing(OutOfMemory("too large"))}), watch, frozenset())
    assert len(outcome.warnings) == 2 and watch.pictures == []


def test_an_upscaler_whose_file_is_gone_is_named_and_ends_the_job(inputs, watch):
    for extras in (Extras((source(inputs), source(inputs, seed=1)), upscaler_1="gone"),
                   Extras((source(inputs),), upscaler_1="Lanczos", upscaler_2="gone",
                          extras_upscaler_2_visibility=0.5)):
        with pytest.raises(InvalidRequest, match="There is no upscaler 'gone'"):
            perform(extras, Bench(inputs, RESAMPLERS), watch, frozenset())
    assert watch.begun == [] and watch.pictures == []


def test_what_is_done_is_not_done_again_and_a_job_stops_when_asked(inputs, watch):
    extras = Extras(tuple(source(inputs, seed=i) for i in range(3)), upscaler_1="Nearest")
    perform(extras, Bench(inputs, RESAMPLERS), watch, frozenset({0}))
    assert [made.index for made in watch.pictures] == [1, 2]
    watch.left = 1
    assert not perform(extras, Bench(inputs, RESAMPLERS), watch, frozenset()).complete


def test_a_skipped_picture_is_left_out(inputs, watch):
    extras = Extras(tuple(source(inputs, seed=i) for i in range(2)), upscaler_1="failing")
    assert perform(extras, Bench(inputs, {"failing": Failing(Skipped("skip"))}), watch, frozenset()).complete
    assert watch.pictures == []


@needs("spandrel")
def test_a_network_tells_of_each_tile(inputs, watch, tmp_path):
    upscalers = shelf_of(tmp_path, double=compact(2))
    extras = Extras((source(inputs, 40, 30),), upscaler_1="double", upscaling_resize=2)
    perform(extras, Bench(inputs, upscalers), watch, frozenset())
    assert watch.pictures[0].image.size == (80, 60) and watch.steps == [(0, 1), (1, 1)]


def deep_source(inputs, channels=3):
    values = picture(20, 10, dtype=np.uint16)
    if channels == 4:
        values = np.dstack([values, values[:, :, 0]])
    return values, Source(inputs.keep(png(DeepImage(values), PngInfo())).id)


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_are_kept(inputs, watch, channels):
    values, one = deep_source(inputs, channels)
    perform(Extras((one,), upscaler_1="Lanczos", upscaling_resize=2), Bench(inputs, RESAMPLERS), watch, frozenset())
    made = watch.pictures[0].image
    assert made.pixels.shape == (20, 40, channels) and len(np.unique(made.pixels)) > 600
    perform(Extras((one,)), Bench(inputs, RESAMPLERS), watch, frozenset())
    np.testing.assert_array_equal(watch.pictures[1].image.pixels, values)


@pytest.mark.parametrize("name, resampling", [
    ("Nearest", Image.Resampling.NEAREST), ("Bicubic", Image.Resampling.BICUBIC), ("Lanczos", Image.Resampling.LANCZOS),
])
@pytest.mark.parametrize("channels", [3, 4])
def test_resampling_is_done_in_sixteen_bits(inputs, watch, name, resampling, channels):
    values, one = deep_source(inputs, channels)
    perform(Extras((one,), upscaler_1=name, upscaling_resize=3), Bench(inputs, RESAMPLERS), watch, frozenset())
    made = watch.pictures[0].image.pixels
    for i in range(channels):
        plane = np.asarray(Image.fromarray(values[:, :, i].astype(np.float32)).resize((60, 30), resampling))
        assert np.abs(made[:, :, i] - plane.clip(0, 65535)).max() <= 0.51


class Halftone:
    """Stands for an extension's upscaler, which works in 8 bits."""

    name = "halftone"

    def upscale(self, image, width, height):
        return image.resize((width, height), Image.Resampling.NEAREST)


def test_an_upscaler_of_eight_bits_can_be_mixed_in(inputs, watch):
    values, one = deep_source(inputs)
    extras = Extras((one,), upscaler_1="Lanczos", upscaler_2="halftone", upscaling_resize=1,
                    extras_upscaler_2_visibility=0.5)
    perform(extras, Bench(inputs, {**RESAMPLERS, "halftone": Halftone()}), watch, frozenset())
    assert np.abs(watch.pictures[0].image.pixels.astype(int) - values).max() <= 128


class Whitener:
    """Stands for a face restorer: draws a white line as long as the weight says; notes the sizes that it is shown."""

    def __init__(self, name, seen):
        self.name, self.seen = name, seen

    def restore(self, image, fidelity, advance):
        self.seen.append((self.name, image.size, fidelity))
        pixels = np.array(image.convert("RGB"))
        pixels[0] = 255
        advance(1, 2)
        advance(2, 2)
        return Image.fromarray(pixels)


@pytest.mark.parametrize("first, size", [(True, (40, 20)), (False, (20, 10))])
def test_faces_are_restored_after_enlarging_or_before(inputs, watch, first, size):
    seen = []
    extras = Extras((source(inputs, infotext="a cat"),), upscaler_1="Nearest", upscaling_resize=2, gfpgan_visibility=1,
                    codeformer_visibility=0.5, codeformer_weight=0.3, upscale_first=first)
    perform(extras, Bench(inputs, RESAMPLERS, restorer=lambda name: Whitener(name, seen)), watch, frozenset())
    assert seen == [("GFPGAN", size, 0.3), ("CodeFormer", size, 0.3)]
    made = np.asarray(watch.pictures[0].image)
    assert made.shape == (20, 40, 3) and (made[0] == 255).all() and ((made[1] == 255).all() != first)
    assert watch.pictures[0].parameters["CodeFormer visibility"] == "0.5"
    shares = [done / total for done, total in watch.steps]
    assert shares == sorted(shares) and shares[-1] == 1


def test_a_restored_picture_is_mixed_in_and_keeps_depth_and_alpha(inputs, watch):
    values, one = deep_source(inputs, 4)
    extras = Extras((one,), gfpgan_visibility=0.25)
    perform(extras, Bench(inputs, RESAMPLERS, restorer=lambda name: Whitener(name, [])), watch, frozenset())
    made = watch.pictures[0].image.pixels
    np.testing.assert_array_equal(made[:, :, 3], values[:, :, 3])
    np.testing.assert_allclose(made[0, :, :3], values[0, :, :3] * 0.75 + 65535 * 0.25, atol=1)
    assert np.abs(made[1:].astype(int) - values[1:]).max() <= 64


def test_a_face_restorer_whose_file_is_gone_ends_the_job(inputs, watch):
    with pytest.raises(InvalidRequest, match="CodeFormer"):
        perform(Extras((source(inputs), source(inputs, seed=1)), codeformer_visibility=1), Bench(inputs, RESAMPLERS),
                watch, frozenset())
    assert watch.begun == []


class Twice(Plugin):
    id, name = "twice", "Twice"

    def postprocess(self, image, params):
        return None if image.width > 100 else [image, image.rotate(180)]


class Broken(Plugin):
    id, name = "broken", "Broken"

    def postprocess(self, image, params):
        raise KeyError("x")


def test_plugins_make_several_of_one(inputs, watch):
    sources = tuple(source(inputs, seed=i, width=20 + 100 * (i == 1), name=f"{i}.png") for i in range(3))
    bench = Bench(inputs, RESAMPLERS, (Active(Twice(None), NoParams()), Active(Plugin(None), NoParams())))
    perform(Extras(sources), bench, watch, frozenset())
    assert [made.index for made in watch.pictures] == [3, 0, 1, 5, 2]
    assert [made.basename for made in watch.pictures] == ["0", "0", "1", "2", "2"]
    first, second = watch.pictures[:2]
    np.testing.assert_array_equal(np.asarray(first.image)[::-1, ::-1], np.asarray(second.image))


def test_sixteen_bits_stay_where_plugins_leave_a_picture_alone(inputs, watch):
    _, one = deep_source(inputs)
    perform(Extras((one,)), Bench(inputs, RESAMPLERS, (Active(Plugin(None), NoParams()),)), watch, frozenset())
    assert isinstance(watch.pictures[0].image, DeepImage)


class Deep(Twice):
    sixteen_bits = True

    def postprocess(self, image, params):
        return [image, image.transpose(Image.Transpose.ROTATE_90)]


@pytest.mark.parametrize("channels", [3, 4])
def test_a_plugin_that_knows_sixteen_bits_is_given_and_gives_them(inputs, watch, channels):
    values, one = deep_source(inputs, channels)
    perform(Extras((one,)), Bench(inputs, RESAMPLERS, (Active(Deep(None), NoParams()),)), watch, frozenset())
    same, turned = (made.image.pixels for made in watch.pictures)
    np.testing.assert_array_equal(same, values)
    np.testing.assert_array_equal(turned, np.rot90(values))
    perform(Extras((one,)), Bench(inputs, RESAMPLERS, (Active(Twice(None), NoParams()),)), watch, frozenset())
    assert not isinstance(watch.pictures[2].image, DeepImage)


def test_a_plugin_that_fails_is_named(inputs, watch):
    bench = Bench(inputs, RESAMPLERS, (Active(Broken(None), NoParams()),))
    with pytest.raises(PluginFailed, match="Broken.*postprocess"):
        perform(Extras((source(inputs),)), bench, watch, frozenset())
