import pytest

from modules import __version__
from modules.core.errors import Forbidden, InvalidRequest
from modules.core.grid import Grid
from modules.core.merge import Recipe
from modules.core.request import Request
from modules.core.settings import Settings
from modules.launcher.commands import SERVE, TEST, TXT2IMG, parse, parse_setting, split


def test_without_arguments_it_serves():
    call = parse([], {})
    assert call.command == SERVE and call.warnings == () and call.txt2img is None


def test_commandline_args_stand_in_front():
    call = parse(["--port", "2"], {"COMMANDLINE_ARGS": "--port 1 --ckpt-dir 'my models' --no-hashing"})
    assert (call.flags.port, call.flags.ckpt_dir, len(call.warnings)) == (2, "my models", 1)


@pytest.mark.parametrize("text, windows, expected", [
    (r"--a 'b c' --d", False, ["--a", "b c", "--d"]),
    (r"--a b\ c", False, ["--a", "b c"]),
    (r"--ckpt-dir C:\models --x", True, ["--ckpt-dir", r"C:\models", "--x"]),
    (r'--ckpt-dir "D:\my models"', True, ["--ckpt-dir", r"D:\my models"]),
    ("--a #b", False, ["--a", "#b"]),
    ("", False, []),
])
def test_words_of_commandline_args(text, windows, expected):
    assert split(text, windows) == expected


def test_an_open_quotation_mark_is_an_error():
    with pytest.raises(InvalidRequest, match="COMMANDLINE_ARGS"):
        parse([], {"COMMANDLINE_ARGS": "--ckpt-dir 'a"})


@pytest.mark.parametrize("words, part", [
    (["--medvrm"], "Did you mean --medvram?"),
    (["--ckpt_dir", "x"], "Did you mean --ckpt-dir?"),
    (["--qwertyuiop"], "--help"),
    (["stray"], "no argument stray"),
    (["--port", "1", "txt2img"], "comes first"),
    (["--port", "abc"], "invalid int"),
    (["--theme", "pink"], "invalid choice"),
    (["--precisio", "full"], "Did you mean --precision?"),
])
def test_what_is_unknown_gets_a_hint(words, part):
    with pytest.raises(InvalidRequest) as caught:
        parse(words, {})
    assert part in str(caught.value)


def test_unknown_arguments_can_be_let_pass():
    call = parse(["--medvrm", "--port", "3"], {"IGNORE_CMD_ARGS_ERRORS": ""})
    assert call.flags.port == 3 and "--medvram" in call.warnings[0]


def test_exposure_is_refused_while_reading():
    with pytest.raises(Forbidden):
        parse(["--listen"], {})
    call = parse(["--listen", "--api-auth", "ann:a"], {})
    assert call.flags.accounts == (("ann", "a"),)


def test_pictures_without_a_server_need_no_account():
    assert parse(["txt2img", "--prompt", "a"], {"COMMANDLINE_ARGS": "--listen"}).flags.listen


def test_txt2img_defaults_are_those_of_a_request():
    call = parse(["txt2img", "--prompt", "a cat"], {})
    assert call.command == TXT2IMG
    assert call.txt2img.request(Settings()) == Request(prompt="a cat")


def test_txt2img_reads_every_field():
    words = ("txt2img --prompt a --negative-prompt b --steps 5 --sampler Euler --schedule Karras "
             "--seed 18446744073709551615 --width 64 --height 128 --cfg-scale 2.5 --batch-size 2 --batch-count 3 "
             "--model m --vae v --out o.png "
             "--set CLIP_stop_at_last_layers=2 --set emphasis=None --set always_discard_next_to_last_sigma=yes "
             "--set eta_ddim=0.5 --set=hide_samplers=a,b --models-dir d")
    call = parse(words.split(), {})
    request = call.txt2img.request(Settings())
    assert (call.txt2img.out, call.flags.models_dir) == ("o.png", "d")
    assert request == Request(
        prompt="a", negative_prompt="b", steps=5, sampler="Euler", schedule="Karras", seed=2**64 - 1, width=64,
        height=128, guidance_scale=2.5, batch_size=2, batch_count=3, model="m", vae="v",
        settings=Settings(CLIP_stop_at_last_layers=2, emphasis="None", always_discard_next_to_last_sigma=True,
                          eta_ddim=0.5, hide_samplers=("a", "b")))


def test_txt2img_reads_hires_fix_refiner_tiling_and_styles():
    words = ("txt2img --prompt a --hires --hires-scale 1.5 --hires-width 640 --hires-height 768 "
             "--hires-upscaler Lanczos --hires-steps 7 --denoising-strength 0.4 --hires-checkpoint c "
             "--hires-sampler Euler --hires-schedule Karras --hires-cfg-scale 3 --hires-prompt p "
             "--hires-negative-prompt n --refiner r --refiner-switch-at 0.6 --tiling --restore-faces "
             "--style ink --style film")
    assert parse(words.split(), {}).txt2img.request(Settings()) == Request(
        prompt="a", enable_hr=True, hr_scale=1.5, hr_resize_x=640, hr_resize_y=768, hr_upscaler="Lanczos",
        hr_second_pass_steps=7, denoising_strength=0.4, hr_checkpoint="c", hr_sampler="Euler", hr_schedule="Karras",
        hr_guidance_scale=3.0, hr_prompt="p", hr_negative_prompt="n", refiner="r", refiner_switch_at=0.6, tiling=True,
        restore_faces=True, styles=("ink", "film"))


def test_every_field_that_a_person_may_set_has_an_argument():
    apart = {"kind", "grid", "plugins", "parameters", "settings", "save_images", "save_grid", "subseed",
             "subseed_strength", "seed_resize_from_w", "seed_resize_from_h"}
    text = parse(["txt2img", "--prompt", "a"], {}).txt2img.fields
    image = parse(["img2img", "--prompt", "a", "--image", "a.png"], {}).txt2img.fields
    paths = {"init_images", "mask", "mask_round", "depth_map", "latent_mask", "firstpass_image"}
    assert set(text) | set(image) == set(Request.__dataclass_fields__) - (apart - {"kind", "grid"}) - paths
    assert text["grid"] == image["grid"] == Grid()
    assert "mask_blur_x" not in text and "hr_scale" not in image


def test_a_plot_has_an_argument_for_every_field():
    words = ["--x-type", "Steps", "--x-values", "1-3", "--y-type", "Sampler", "--y-values", "Euler, LMS", "--z-type",
             "Seed", "--z-values", "-1", "--no-legend", "--include-sub-images", "--include-sub-grids",
             "--keep-random-seeds", "--vary-seeds-x", "--vary-seeds-y", "--vary-seeds-z", "--grid-margin", "4"]
    grid = parse(["txt2img", "--prompt", "a", *words], {}).txt2img.fields["grid"]
    assert grid == Grid("Steps", "1-3", "Sampler", "Euler, LMS", "Seed", "-1", False, True, True, True, True, True,
                        True, 4)


def test_pictures_are_begun_from_with_what_is_written():
    words = ["--denoising-strength", "0.5", "--mask", "m.png", "--mask-blur", "9", "--only-masked", "--mask-invert",
             "--masked-content", "2", "--outpaint-left", "64", "--batch-size", "2", "--image", "b.png",
             "--depth-map", "d.png", "--latent-mask", "l.png"]
    arguments = parse(["img2img", "--prompt", "a", "--image", "a.png", *words], {}).txt2img
    assert (arguments.images, arguments.beside) == (
        ("a.png", "b.png"), {"mask": "m.png", "latent_mask": "l.png", "depth_map": "d.png"})
    request = arguments.request(Settings(), ("1" * 32, "2" * 32), {
        "mask": "3" * 32, "depth_map": "4" * 32, "latent_mask": "5" * 32})
    assert (request.depth_map, request.latent_mask) == ("4" * 32, "5" * 32)
    assert (request.kind, request.init_images, request.mask, request.denoising_strength) == (
        "img2img", ("1" * 32, "2" * 32), "3" * 32, 0.5)
    assert (request.mask_blur_x, request.mask_blur_y, request.inpaint_full_res, request.inpainting_mask_invert,
            request.inpainting_fill, request.outpaint_left) == (9, 9, True, True, 2, 64)
    assert parse(["img2img", "--prompt", "a", "--image", "a.png"], {}).txt2img.fields["denoising_strength"] == 0.75


@pytest.mark.parametrize("words, part", [
    ([], "--image"), (["--image", "a", "--image", "b"], "2 pictures"), (["--image", "a", "--hires"], "--hires"),
    (["--image", "a", "--resize-mode", "9"], "resize_mode"), (["--image", "a", "--inpaint-mode", "no"], "inpaint_mode"),
])
def test_a_bad_beginning_is_refused_at_once(words, part):
    with pytest.raises(InvalidRequest, match=part):
        parse(["img2img", "--prompt", "a", *words], {})


def test_settings_on_the_command_line_go_over_those_given():
    call = parse(["txt2img", "--prompt", "a", "--set", "eta_ddim=1"], {})
    settings = call.txt2img.request(Settings(eta_ancestral=0.25)).settings
    assert (settings.eta_ancestral, settings.eta_ddim) == (0.25, 1.0)


@pytest.mark.parametrize("words, part", [
    ([], "--prompt"),
    (["--prompt", "a", "--steps", "0"], "steps"),
    (["--prompt", "a", "--width", "513"], "Use 512 or 520"),
    (["--prompt", "a", "--seed", "18446744073709551616"], "seed"),
    (["--prompt", "a", "--cfg-scale", "nan"], "guidance_scale"),
    (["--prompt", "a", "--hires", "--hires-scale", "99"], "hr_scale"),
    (["--prompt", "a", "--refiner-switch-at", "2"], "refiner_switch_at"),
])
def test_a_request_out_of_range_is_refused_at_once(words, part):
    with pytest.raises(InvalidRequest) as caught:
        parse(["txt2img", *words], {})
    assert part in str(caught.value)


@pytest.mark.parametrize("text, part", [
    ("eta_ddim", "name=value"),
    ("etaddim=1", "Did you mean eta_ddim?"),
    ("eta_ddim=much", "float"),
    ("eta_ddim=2", "outside"),
    ("eta_ddim=nan", "finite"),
    ("samples_save=perhaps", "bool"),
    ("emphasis=Loud", "none of"),
])
def test_a_malformed_setting_is_refused(text, part):
    with pytest.raises(InvalidRequest) as caught:
        parse_setting(text)
    assert part in str(caught.value)


def test_words_after_test_go_to_pytest():
    words = ["test", "tests/core", "-k", "a or b", "--skip-install", "-x", "--port"]
    call = parse(words, {"COMMANDLINE_ARGS": "--listen"})
    assert call.command == TEST and call.flags.skip_install and not call.flags.listen
    assert call.rest == ("tests/core", "-k", "a or b", "-x", "--port")


@pytest.mark.parametrize("words", [["--help"], ["txt2img", "--help"], ["--version"]])
def test_help_and_version_exit(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(words, {})
    printed = capsys.readouterr().out
    assert caught.value.code == 0
    known = "--ckpt-dir" in printed and "--no-hashing" not in printed
    assert __version__ in printed if words == ["--version"] else known


def test_a_merge_is_tried_out_by_its_recipe():
    words = ["txt2img", "--prompt", "a", "--merge"]
    asked = parse([*words, '{"model_a": "x", "model_b": "y", "alpha": 1}'], {}).txt2img.request(Settings())
    assert asked.merge == Recipe("x", "y", alpha=1.0)
    for text in ("{", "[]", '{"model_z": "x"}', '{"model_a": "x"}'):
        with pytest.raises(InvalidRequest):
            parse([*words, text], {})
