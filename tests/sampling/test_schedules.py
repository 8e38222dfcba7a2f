import itertools

import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import InvalidRequest
from modules.sampling.schedules import SCHEDULES, find_schedule, schedule_sigmas
from modules.sampling.spaces import flow_space, space_from_betas

SD = space_from_betas()
TABLE = np.array(SD.sigmas)
LOGS = np.log(TABLE)
SD_CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def levels(name, steps, **options):
    return schedule_sigmas(find_schedule(name), steps, SD, **options)


def diffusers_levels(steps, **config):
    scheduler = EulerDiscreteScheduler(**SD_CONFIG, **config)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.numpy()


@pytest.mark.parametrize(("name", "steps", "config"), [
    ("Karras", 13, {"use_karras_sigmas": True}),
    ("Exponential", 13, {"use_exponential_sigmas": True}),
    ("Uniform", 10, {"timestep_spacing": "linspace"}),
    ("Normal", 28, {"timestep_spacing": "linspace"}),
    ("Automatic", 10, {"timestep_spacing": "linspace"}),
    ("Simple", 20, {"timestep_spacing": "trailing"}),
    ("DDIM", 20, {"timestep_spacing": "leading", "steps_offset": 1}),
])
def test_schedules_are_diffusers_where_definitions_coincide(name, steps, config):
    """Even places of the table coincide where they are whole: 999 = 9 * 111 = 27 * 37."""
    np.testing.assert_allclose(levels(name, steps), diffusers_levels(steps, **config), rtol=1e-4)


def test_karras_is_equation_5():
    ramp = np.linspace(0, 1, 9)
    for rho in (7.0, 3.0):
        expected = (10 ** (1 / rho) + ramp * (0.1 ** (1 / rho) - 10 ** (1 / rho))) ** rho
        ours = levels("karras", 9, sigma_min=0.1, sigma_max=10.0, rho=rho)
        np.testing.assert_allclose(ours, [*expected, 0], rtol=1e-12)


def test_exponential_is_geometric():
    np.testing.assert_allclose(levels("exponential", 7, sigma_min=0.2, sigma_max=8.0), [*np.geomspace(8, 0.2, 7), 0])


@pytest.mark.parametrize(("name", "places"), [
    ("Uniform", np.linspace(999, 0, 17)),
    ("Normal", np.linspace(999, 0, 17)),
    ("SGM Uniform", np.linspace(999, 0, 18)[:-1]),
])
def test_even_places_of_the_table(name, places):
    np.testing.assert_allclose(levels(name, 17), [*np.exp(np.interp(places, np.arange(1000), LOGS)), 0], rtol=1e-12)


@pytest.mark.parametrize("name", ["Normal", "SGM Uniform"])
def test_overridden_ends_move_the_places(name):
    high, low = (np.interp(np.log(sigma), LOGS, np.arange(1000)) for sigma in (9.0, 0.3))
    places = np.linspace(high, low, 6) if name == "Normal" else np.linspace(high, low, 7)[:-1]
    expected = [*np.exp(np.interp(places, np.arange(1000), LOGS)), 0]
    np.testing.assert_allclose(levels(name, 6, sigma_min=0.3, sigma_max=9.0), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["Automatic", "Uniform", "Simple", "DDIM"])
def test_schedules_of_the_whole_table_ignore_the_ends(name):
    assert levels(name, 8, sigma_min=0.3, sigma_max=9.0, rho=3.0) == levels(name, 8)


def test_ddim_has_more_levels_where_steps_do_not_divide_the_table():
    assert levels("DDIM", 30) == (*TABLE[[1 + 33 * index for index in range(31)]][::-1], 0.0)


@settings(deadline=None)
@given(st.sampled_from(SCHEDULES), st.integers(1, 1000), st.sampled_from([SD, flow_space(), flow_space(3.0)]))
def test_levels_descend_strictly_within_the_table_and_end_in_zero(schedule, steps, space):
    sigmas = schedule_sigmas(schedule, steps, space)
    assert all(isinstance(sigma, float) for sigma in sigmas)
    assert all(high > low for high, low in itertools.pairwise(sigmas))
    assert sigmas[-1] == 0 and sigmas[0] <= space.sigma_max * (1 + 1e-12)
    assert len(sigmas) == steps + 1 or schedule.name == "ddim"


@settings(deadline=None)
@given(st.floats(0.01, 1.0), st.floats(1.5, 60.0), st.floats(0.5, 50.0), st.integers(2, 150))
def test_overrides_are_the_ends_of_karras(low, high, rho, steps):
    sigmas = levels("karras", steps, sigma_min=low, sigma_max=high, rho=rho)
    assert sigmas[0] == pytest.approx(high) and sigmas[-2] == pytest.approx(low)
    assert all(above > below for above, below in itertools.pairwise(sigmas))


def test_schedules_are_found_by_name_label_and_alias_in_any_case():
    for schedule in SCHEDULES:
        for name in (schedule.name, schedule.label.upper(), *schedule.aliases):
            assert find_schedule(name) is schedule
    assert find_schedule("").label == "Automatic"
    labels = ["Automatic", "Uniform", "Karras", "Exponential", "SGM Uniform", "Simple", "Normal", "DDIM"]
    assert [schedule.label for schedule in SCHEDULES] == labels


def test_an_unknown_schedule_is_refused_with_near_ones():
    with pytest.raises(InvalidRequest, match="Use Karras"):
        find_schedule("Karas")
    with pytest.raises(InvalidRequest, match="Automatic, Uniform"):
        find_schedule("zzz" * 1000)


@pytest.mark.parametrize("options", [{"sigma_min": 2.0, "sigma_max": 1.0}, {"sigma_min": 20.0}])
def test_ends_without_a_range_are_refused(options):
    with pytest.raises(InvalidRequest, match="below"):
        levels("Karras", 5, **options)


def test_a_flow_ends_at_one_and_there_is_no_run_of_no_steps():
    with pytest.raises(InvalidRequest, match="above 1"):
        schedule_sigmas(find_schedule("Karras"), 5, flow_space(), sigma_max=10.0)
    with pytest.raises(InvalidRequest, match="at least 1"):
        levels("Karras", 0)
