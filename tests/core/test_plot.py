import dataclasses
import itertools

import pytest

from modules.core import plot
from modules.core.axes import AXES
from modules.core.errors import InvalidRequest
from modules.core.grid import Grid
from modules.core.request import Request
from modules.core.result import SavedImage

REQUEST = Request(prompt="a cat", seed=100, subseed=7)


def planned(grid, request=REQUEST, seeds=None):
    counter = itertools.count(1000) if seeds is None else iter(seeds)
    lines = plot.lines(grid, AXES, lambda: next(counter))
    return lines, plot.cells(dataclasses.replace(request, grid=grid), lines)


def test_each_cell_has_its_values_and_is_made_row_by_row():
    _, cells = planned(Grid("CFG Scale", "5, 7", "Steps", "1-3", "Prompt S/R", "cat, dog"))
    assert [cell.place for cell in cells] == [(x, y, z) for z in range(2) for y in range(3) for x in range(2)]
    for cell in cells:
        x, y, z = cell.place
        assert cell.request == dataclasses.replace(
            REQUEST, guidance_scale=(5.0, 7.0)[x], steps=(1, 2, 3)[y], prompt=("a cat", "a dog")[z], save_grid=False)


def test_one_axis_alone_is_a_row_a_column_or_sheets():
    for axis, place in (("x", (2, 0, 0)), ("y", (0, 2, 0)), ("z", (0, 0, 2))):
        _, cells = planned(Grid(**{f"{axis}_type": "Steps", f"{axis}_values": "1-3"}))
        assert len(cells) == 3 and cells[-1].place == place and cells[-1].request.steps == 3


@pytest.mark.parametrize("axis", "xyz")
def test_checkpoints_change_least_often_on_whatever_axis(axis):
    others = [name for name in "xyz" if name != axis]
    values = {f"{axis}_type": "Checkpoint name", f"{axis}_values": "a, b", f"{others[0]}_type": "Steps",
              f"{others[0]}_values": "1, 2", f"{others[1]}_type": "VAE", f"{others[1]}_values": "v, w"}
    _, cells = planned(Grid(**values))
    models = [cell.request.model for cell in cells]
    vaes = [cell.request.vae for cell in cells]
    assert models == ["a"] * 4 + ["b"] * 4
    assert vaes == ["v", "v", "w", "w"] * 2


def test_seeds_are_counted_up_along_the_axes_that_ask_for_it():
    grid = Grid("Steps", "1-3", "CFG Scale", "5, 7", "Prompt S/R", "cat, dog")
    for wanted in itertools.product((False, True), repeat=3):
        _, cells = planned(dataclasses.replace(grid, **dict(zip(
            ("vary_seeds_x", "vary_seeds_y", "vary_seeds_z"), wanted, strict=True))))
        # A1111: ix, plus iy times the width that counts, plus iz times the area that counts.
        wide, high = 3 if wanted[0] else 1, 2 if wanted[1] else 1
        strides = (1, wide, wide * high)
        for cell in cells:
            by = sum(at * stride for at, stride, varies in zip(cell.place, strides, wanted, strict=True) if varies)
            assert cell.request.seed == 100 + by


def test_random_seeds_of_an_axis_are_fixed_once_unless_the_grid_says_otherwise():
    grid = Grid("Seed", "-1, 5, -1", "Var. seed", "-1")
    lines, cells = planned(grid)
    assert [cell.request.seed for cell in cells] == [1000, 5, 1001] and cells[0].request.subseed == 1002
    drawn = plot.plot_of(grid, lines, {cell.place: (0,) for cell in cells})
    assert drawn.fixed == {"X": "1000, 5, 1001", "Y": "1002"}
    kept = dataclasses.replace(grid, no_fixed_seeds=True)
    lines, cells = planned(kept)
    assert [cell.request.seed for cell in cells] == [-1, 5, -1]
    assert plot.plot_of(kept, lines, {cell.place: (0,) for cell in cells}).fixed == {}


def test_the_infotext_is_a1111s():
    grid = Grid("Seed", "-1, 5", "Nothing", "", "Sampler", "Euler, Euler a")
    lines, cells = planned(grid)
    drawn = plot.plot_of(grid, lines, {cell.place: (number,) for number, cell in enumerate(cells)})
    assert drawn.x_labels == ("Seed: 1000", "Seed: 5") and drawn.y_labels == ("",)
    assert drawn.z_labels == ("Euler", "Euler a") and drawn.cells == ((0,), (1,), (2,), (3,))
    assert plot.entries(drawn) == {"Script": "X/Y/Z plot", "X Type": "Seed", "X Values": "-1, 5",
                                   "Fixed X Values": "1000, 5", "Z Type": "Sampler", "Z Values": "Euler, Euler a"}
    assert "Z Type" not in plot.entries(drawn, "XY")


def test_too_many_cells_are_refused():
    with pytest.raises(InvalidRequest, match="1,000 x 11 x 1 are 11,000 cells"):
        planned(Grid("Steps", "1-1000", "CFG Scale", "1-11"))


def test_steps_are_those_of_all_passes():
    assert plot.steps(Request(steps=10, batch_count=3)) == 30
    assert plot.steps(Request(steps=10, enable_hr=True)) == 20
    assert plot.steps(Request(steps=10, enable_hr=True, hr_second_pass_steps=4, batch_count=2)) == 28


@pytest.mark.parametrize(("grid", "with_grid", "expected"), [
    (Grid(), True, (2, 0, 1)), (Grid(), False, (0, 1)), (Grid("Steps", "1"), False, (2,)),
    (Grid("Steps", "1", include_lone_images=True), True, (2, 0, 1)),
])
def test_grids_are_shown_first_and_cells_where_they_are_wanted(grid, with_grid, expected):
    images = [SavedImage("p", kind, 8, 8, 1, "") for kind in ("picture", "picture", "grid")]
    assert plot.shown(images, grid, with_grid) == expected
    assert plot.shown(images[:2], grid, with_grid) == (0, 1)


def test_the_prompts_of_all_cells_fit_into_memory(monkeypatch):
    monkeypatch.setattr(plot, "MAX_CHARACTERS", 30)
    request = Request(prompt="a cat on mats", grid=Grid("Steps", "1-3"))
    with pytest.raises(InvalidRequest, match="more than 30 characters"):
        plot.cells(request, plot.lines(request.grid, AXES, lambda: 1))
