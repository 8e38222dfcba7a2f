import numpy as np
import pytest

from modules.core.errors import InvalidRequest
from modules.sampling.published import ALIGN_YOUR_STEPS, ALIGN_YOUR_STEPS_32, GITS
from modules.sampling.schedules import find_schedule, schedule_sigmas
from modules.sampling.spaces import space_from_betas
from tests.sampling.analytic import FLOW, SD

SDXL = space_from_betas(published="sdxl")
TABLES = [("Align Your Steps", ALIGN_YOUR_STEPS, 11), ("Align Your Steps 11", ALIGN_YOUR_STEPS, 11),
          ("Align Your Steps GITS", GITS, 11), ("Align Your Steps 32", ALIGN_YOUR_STEPS_32, 32)]


@pytest.mark.parametrize(("name", "tables", "length"), TABLES)
@pytest.mark.parametrize("space", [SD, SDXL], ids=["sd1", "sdxl"])
def test_a_table_is_taken_as_it_is_for_as_many_steps_and_else_interpolated(name, tables, length, space):
    table = tables[space.published]
    assert len(table) == length and list(table) == sorted(table, reverse=True)
    assert schedule_sigmas(find_schedule(name), length, space) == (*table, 0.0)
    for steps in (2, 5, 20, 63):
        places = np.linspace(0, length - 1, steps)
        expected = np.exp(np.interp(places, np.arange(length), np.log(table)))
        np.testing.assert_allclose(schedule_sigmas(find_schedule(name), steps, space), [*expected, 0], rtol=1e-12)
    assert schedule_sigmas(find_schedule(name), 1, space) == (14.615, 0.0)


def test_the_tables_of_both_models_differ():
    for _, tables, _ in TABLES:
        assert tables["sd1"][1:-1] != tables["sdxl"][1:-1]


def test_diffusers_has_the_same_numbers():
    """Its lists are of timesteps; the levels of those timesteps agree to the digits that were published."""
    from diffusers.schedulers import AysSchedules

    for key, tables in (("StableDiffusionTimesteps", "sd1"), ("StableDiffusionXLTimesteps", "sdxl")):
        theirs = [SD.sigmas[timestep] for timestep in AysSchedules[key]]
        np.testing.assert_allclose(ALIGN_YOUR_STEPS[tables][:10], theirs, rtol=0.03)


def test_there_is_none_for_a_flow():
    with pytest.raises(InvalidRequest, match="flow"):
        schedule_sigmas(find_schedule("Align Your Steps"), 10, FLOW)
