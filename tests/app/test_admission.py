import dataclasses

import pytest
from PIL import Image

from modules.app.admission import Desk, admit, admit_all, admit_extras, check_id, listed_choice, well_formed
from modules.core import codec
from modules.core.errors import InvalidRequest, NoModel, NotFound
from modules.core.extras import Extras, Source
from modules.core.grid import Grid
from modules.core.plot import Plot
from modules.core.request import MAX_PICTURES, Request
from modules.core.settings import Settings
from modules.host.discover import Found
from modules.host.registry import Host
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.library.inputs import Inputs
from modules.sampling.samplers import SAMPLERS
from tests.app.copies_plugin import Copies
from tests.fixtures.fake_engine import write_stand_in_checkpoint


@pytest.fixture
def desk(tmp_path):
    places = folders(tmp_path, {})
    write_stand_in_checkpoint(places.checkpoints[0], "a.safetensors")
    write_stand_in_checkpoint(places.checkpoints[0], "b.safetensors")
    write_stand_in_checkpoint(places.vae[0], "v.safetensors")
    library = Library(places, HashCache(tmp_path / "hashes.sqlite3"))
    return Desk(places, library, Host((Found("copies", tmp_path, Copies(None)),)))


def test_names_are_resolved_and_seeds_fixed(desk):
    request = admit(Request(sampler="dpm++ 2m karras", model="B", vae="V"), desk).request
    assert (request.sampler, request.schedule, request.model, request.vae) == (
        "DPM++ 2M", "Karras", "b.safetensors", "V")
    assert 0 <= request.seed < 2**32 and 0 <= request.subseed < 2**32
    assert admit(Request(seed=7, subseed=8), desk).request.seed == 7


def test_a_schedule_of_its_own_wins_over_the_samplers_name(desk):
    assert admit(Request(sampler="DPM++ 2M Karras", schedule="exponential"), desk).request.schedule == "Exponential"


def test_names_of_hires_fix_and_the_refiner_are_resolved(desk):
    asked = Request(enable_hr=True, hr_sampler="dpm++ 2m karras", hr_upscaler="latent (BICUBIC)", hr_checkpoint="B",
                    refiner="b", sampler="Euler", schedule="Exponential")
    request = admit(asked, desk).request
    assert (request.hr_sampler, request.hr_schedule, request.hr_upscaler) == ("DPM++ 2M", "Karras", "Latent (bicubic)")
    assert (request.hr_checkpoint, request.refiner) == ("b.safetensors", "b.safetensors")
    assert (request.sampler, request.schedule) == ("Euler", "Exponential")


@pytest.mark.parametrize(("sampler", "schedule", "expected"), [
    ("", "", ("", "")), ("Euler a", "", ("Euler a", "")), ("", "karras", ("", "Karras")),
    ("Euler a", "Automatic", ("Euler a", "Automatic")), ("DPM++ 2M Karras", "Exponential", ("DPM++ 2M", "Exponential")),
])
def test_what_hires_fix_does_not_name_is_left_to_the_first_pass(desk, sampler, schedule, expected):
    request = admit(Request(enable_hr=True, hr_sampler=sampler, hr_schedule=schedule), desk).request
    assert (request.hr_sampler, request.hr_schedule, request.hr_checkpoint) == (*expected, "")


def test_names_of_hires_fix_count_only_where_it_is_on(desk):
    nonsense = Request(hr_sampler="x", hr_upscaler="ESRGAN_4x", hr_checkpoint="z")
    assert admit(nonsense, desk).request.hr_upscaler == "ESRGAN_4x"
    for field in ("hr_sampler", "hr_schedule", "hr_upscaler", "hr_checkpoint"):
        with pytest.raises((InvalidRequest, NotFound), match="nothing"):
            admit(Request(enable_hr=True, **{field: "nothing"}), desk)
    with pytest.raises(NotFound, match="a.safetensors"):
        admit(Request(refiner="a.safetensor"), desk)


def test_the_model_is_the_requests_or_the_settings_or_the_first(desk):
    settings = Settings(sd_model_checkpoint="b.safetensors")
    assert admit(Request(settings=settings), desk).request.model == "b.safetensors"
    assert admit(Request(settings=settings, model="a"), desk).request.model == "a.safetensors"
    assert admit(Request(), desk).request.model == "a.safetensors"


def test_what_is_not_there_is_named_with_what_is_near(desk):
    with pytest.raises(NotFound, match="a.safetensors"):
        admit(Request(model="a.safetensor"), desk)
    with pytest.raises(NotFound, match="VAE"):
        admit(Request(vae="nothing"), desk)
    for field in ({"sampler": "Eulr"}, {"schedule": "Karas"}, {"kind": "txt3img"}, {"steps": 0}, {"width": 500}):
        with pytest.raises(InvalidRequest):
            admit(Request(**field), desk)


def test_without_any_checkpoint_it_says_where_to_put_one(tmp_path):
    places = folders(tmp_path, {})
    desk = Desk(places, Library(places, HashCache(tmp_path / "h.sqlite3")), Host(()))
    for request in (Request(), Request(model="x")):
        with pytest.raises(NoModel, match="Stable-diffusion"):
            admit(request, desk)


def test_a_name_that_looks_like_a_path_is_only_a_name(desk, tmp_path):
    outside = write_stand_in_checkpoint(tmp_path / "outside", "x.safetensors")
    for name in (str(outside), "../../outside/x.safetensors", "../VAE/v.safetensors"):
        with pytest.raises(NotFound):
            admit(Request(model=name), desk)


def test_styles_are_applied_once_and_unknown_ones_reported(desk):
    desk.folders.styles.write_text("name,prompt,negative_prompt\nInk,\"{prompt}, ink\",blur\n")
    admitted = admit(Request(prompt="a cat", styles=("Ink", "Oil")), desk)
    assert (admitted.request.prompt, admitted.request.negative_prompt) == ("a cat, ink", "blur")
    assert admitted.request.styles == () and "'Oil'" in admitted.warnings[0]
    assert admitted.request.hr_prompt == ""
    hires = admit(Request(prompt="a cat", hr_prompt="a lion", styles=("Ink",)), desk).request
    assert (hires.hr_prompt, hires.hr_negative_prompt, hires.negative_prompt) == ("a lion, ink", "", "blur")


def test_plugins_make_several_of_one_with_seeds_of_their_own(desk):
    admitted = admit(Request(seed=5, plugins={"copies": {"copies": 3}}), desk)
    assert [part.steps for part in admitted.parts] == [1, 2, 3] and -1 not in {part.seed for part in admitted.parts}
    assert admitted.request.seed == 5
    alone = admit(Request(seed=5, plugins={"copies": {"copies": 1}}), desk)
    assert alone.parts == () and alone.request.steps == 1


def test_parameters_of_plugins_are_checked_and_their_number_bounded(desk):
    for plugins in ({"missing": {}}, {"copies": {"copies": "3"}}, {"copies": {"other": 3}},
                    {"copies": {"copies": MAX_PICTURES + 1}}):
        with pytest.raises(InvalidRequest):
            admit(Request(plugins=plugins), desk)


@pytest.mark.parametrize("job_id", ["", "a/b", "../x", "a b", "x" * 101, "é", "a\n"])
def test_ids_that_clients_choose_are_plain(job_id):
    with pytest.raises(InvalidRequest):
        check_id(job_id)
    check_id("task(abc-1.2_3)")
    check_id(None)


def test_half_characters_are_replaced():
    assert well_formed(Request(prompt="a\ud83db", negative_prompt="猫")) == Request(prompt="a?b", negative_prompt="猫")


def test_listed_choices_are_those_of_library_and_samplers(desk):
    listed = listed_choice(desk.library)
    assert listed("checkpoints", "a") == "a.safetensors" and listed("vaes", "V") == "v.safetensors"
    assert listed("vaes", "None") == "None" and listed("samplers", "euler A") == "Euler a"
    with pytest.raises(NotFound):
        listed("checkpoints", "z")
    own = dataclasses.replace(SAMPLERS[0], name="Of an extension", aliases=())
    assert listed_choice(desk.library, lambda: (*SAMPLERS, own))("samplers", "of an Extension") == "Of an extension"
    with pytest.raises(InvalidRequest):
        listed("samplers", "Of an extension")


def test_pictures_to_enlarge_that_would_be_too_large_are_left_out(tmp_path):
    places = folders(tmp_path, {})
    desk = Desk(places, Library(places, HashCache(tmp_path / "hashes.sqlite3")), Host(()))
    inputs = Inputs(places.inputs)
    small, large = (Source(inputs.add(Image.new("L", size)).id, f"{size[0]}.png") for size in ((8, 8), (9000, 400)))
    extras, problems = admit_extras(Extras((small, large), upscaler_1="lanczos"), desk)
    assert (extras.sources, extras.upscaler_1, extras.upscaler_2) == ((small,), "Lanczos", "None")
    assert len(problems) == 1 and problems[0].startswith("9000.png was skipped: 9000x400 would become 36000x1600")
    with pytest.raises(InvalidRequest, match="36000x1600"):
        admit_extras(Extras((large,)), desk)
    with pytest.raises(InvalidRequest, match="None of the pictures"):
        admit_extras(Extras((large, large)), desk)


GRID = Grid("Steps", "3, 4", "Sampler", "euler a, dpm++ 2m karras")


def test_a_grid_becomes_its_cells_and_the_task_that_draws_them(desk):
    admitted = admit(Request(prompt="a cat", grid=GRID), desk)
    *cells, task = admitted.parts
    assert [(one.steps, one.sampler, one.schedule) for one in cells] == [
        (3, "Euler a", "Automatic"), (4, "Euler a", "Automatic"), (3, "DPM++ 2M", "Karras"), (4, "DPM++ 2M", "Karras")]
    assert len({(one.seed, one.subseed) for one in cells}) == 1 and 0 <= cells[0].seed < 2**32
    assert not any(one.grid.wanted or one.save_grid for one in cells)
    assert admitted.request.grid == GRID and admitted.request.seed == cells[0].seed
    drawn = codec.decode(Plot, task.values)
    assert (task.task, task.gathers, task.kind, task.pictures) == ("plot", True, "txt2img", 1)
    assert drawn.x_labels == ("Steps: 3", "Steps: 4") and drawn.cells == ((0,), (1,), (2,), (3,))


def test_a_grid_may_keep_its_seeds_random(desk):
    admitted = admit(Request(grid=dataclasses.replace(GRID, no_fixed_seeds=True)), desk)
    assert len({one.seed for one in admitted.parts[:-1]}) == 4


def test_a_cell_that_a_plugin_expands_has_several_parts(desk):
    plugins = {"copies": {"copies": 2}}
    drawn = codec.decode(Plot, admit(Request(grid=Grid("CFG Scale", "5, 7"), plugins=plugins), desk).parts[-1].values)
    assert drawn.cells == ((0, 1), (2, 3))
    varied = admit(Request(grid=Grid("[copies] Copies", "0, 3", include_sub_grids=True)), desk)
    assert codec.decode(Plot, varied.parts[-1].values).cells == ((0,), (1, 2, 3)) and len(varied.parts) == 5
    assert varied.parts[-1].pictures == 1


@pytest.mark.parametrize(("grid", "words"), [
    (Grid("Stepps", "1"), "Did you mean Steps"), (Grid("Steps", "0"), "steps must be from 1"),
    (Grid("Sampler", "Eulr"), "Euler"), (Grid("Checkpoint name", "c.safetensors"), "c.safetensors"),
    (Grid("VAE", "w"), "w"), (Grid("Image CFG Scale", "1"), "no axis"), (Grid("Steps", ""), "no values"),
    (Grid("Seed", "1-101", "Steps", "1-100"), "10,100 cells"), (Grid("Width", "65"), "multiple of 8"),
    (Grid("[copies] Copies", "-1"), "copies.copies: -1"), (Grid("Clip skip", "13"), "Clip skip"),
    (Grid("Steps", "1-100", "CFG Scale", "1-51", margin_size=900), "margin_size"),
])
def test_a_bad_grid_is_refused_with_what_would_do(desk, grid, words):
    with pytest.raises((InvalidRequest, NotFound)) as error:
        admit(Request(prompt="a cat", grid=grid, batch_count=2), desk)
    assert words in str(error.value)


def test_a_grid_of_too_many_pictures_and_a_batch_with_a_grid_are_refused(desk):
    with pytest.raises(InvalidRequest, match="10,000 pictures"):
        admit(Request(batch_count=101, grid=Grid("Steps", "1-100")), desk)
    with pytest.raises(InvalidRequest, match="batch of pictures"):
        admit_all([Request(grid=GRID)], desk)


def test_folders_are_walked_once_for_each_name(desk, monkeypatch):
    walks = []
    checkpoints = Library.checkpoints

    def counted(library):
        walks.append(1)
        return checkpoints(library)

    monkeypatch.setattr(Library, "checkpoints", counted)
    admit(Request(grid=Grid("Checkpoint name", "a, b", "Steps", "1-50")), desk)
    assert len(walks) <= 8
