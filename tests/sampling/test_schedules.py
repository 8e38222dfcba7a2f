import itertools

import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

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


@pytest.mark.parametrize("name", ["Automatic", "Uniform", "Simple", "DDIM", "Turbo", "Beta57", "Align Your Steps"])
def test_schedules_of_the_whole_table_ignore_the_ends(name):
    assert levels(name, 8, sigma_min=0.3, sigma_max=9.0, rho=3.0) == levels(name, 8)


def test_ddim_has_more_levels_where_steps_do_not_divide_the_table():
    assert levels("DDIM", 30) == (*TABLE[[1 + 33 * index for index in range(31)]][::-1], 0.0)


PUBLISHED = [schedule for schedule in SCHEDULES if schedule.name.startswith("align")]


@settings(deadline=None)
@given(st.sampled_from(SCHEDULES), st.integers(1, 1000), st.sampled_from([SD, flow_space(), flow_space(3.0)]))
def test_levels_descend_strictly_within_the_table_and_end_in_zero(schedule, steps, space):
    """KL Optimal ends at the model's lowest level, and published tables begin at 14.615 instead of 14.6146."""
    if schedule in PUBLISHED and space is not SD:
        return
    sigmas = schedule_sigmas(schedule, steps, space)
    assert all(isinstance(sigma, float) for sigma in sigmas)
    assert all(high > low for high, low in itertools.pairwise(sigmas))
    assert sigmas[-1] == pytest.approx(space.sigma_min if schedule.name == "kl_optimal" else 0, rel=1e-9)
    assert sigmas[0] == pytest.approx(space.sigma_max, rel=1e-4) or schedule.name == "ddim"
    assert len(sigmas) == steps + 1 or schedule.name == "ddim"


def test_polyexponential_is_k_diffusions():
    for rho in (1.0, 2.5):
        ramp = np.linspace(1, 0, 12) ** rho
        expected = np.exp(ramp * (np.log(9.0) - np.log(0.2)) + np.log(0.2))
        ours = levels("polyexponential", 12, sigma_min=0.2, sigma_max=9.0, rho=rho)
        np.testing.assert_allclose(ours, [*expected, 0], rtol=1e-12)
    np.testing.assert_allclose(levels("polyexponential", 12), levels("exponential", 12))


def test_kl_optimal_is_even_in_the_arctangent_down_to_the_lowest_level():
    expected = np.tan(np.linspace(np.arctan(SD.sigma_max), np.arctan(SD.sigma_min), 13))
    np.testing.assert_allclose(levels("kl_optimal", 12), expected, rtol=1e-10)


@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.6), (1.0, 2.0), (0.3, 0.9)])
def test_beta_is_the_quantiles_of_scipy(alpha, beta):
    quantiles = stats.beta.ppf(1 - np.linspace(0, 1, 15), alpha, beta)
    expected = SD.sigma_min + quantiles * (SD.sigma_max - SD.sigma_min)
    ours = levels("beta", 15, options={"alpha": alpha, "beta": beta})
    np.testing.assert_allclose(ours, [*expected, 0], rtol=1e-9)


def test_beta57_is_within_half_a_timestep_of_the_rounded_one():
    places = np.rint(stats.beta.ppf(1 - np.linspace(0, 1, 20, endpoint=False), 0.5, 0.7) * 999)
    ours = [SD.sigma_to_t(sigma) for sigma in levels("beta57", 20)[:-1]]
    assert np.abs(np.array(ours) - places).max() <= 0.5


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20])
def test_turbo_is_diffusers_trailing(steps):
    """Diffusers rounds steps from above, so a half may go the other way."""
    places = np.clip(np.rint(np.arange(steps, 0, -1) * 1000 / steps - 1), 0, 999).astype(int)
    assert levels("turbo", steps) == (*TABLE[places], 0.0)
    if 1000 % steps == 0:
        np.testing.assert_allclose(levels("turbo", steps), diffusers_levels(steps, timestep_spacing="trailing"),
                                   rtol=1e-4)


def test_linear_quadratic_is_even_then_a_parabola_that_meets_it():
    """Constant first and constant second differences, 2.5 % of the range in the first half, and the ends."""
    for steps in (2, 9, 10, 40):
        gone = 1 - np.array(levels("linear_quadratic", steps, sigma_max=10.0)) / 10.0
        even = steps // 2
        np.testing.assert_allclose(np.diff(gone[: even + 1]), 0.025 / even, rtol=1e-9)
        if steps > 4:
            np.testing.assert_allclose(np.diff(gone[even:], 2), np.diff(gone[even:], 2)[0], rtol=1e-7)
        assert gone[0] == 0 and gone[even] == pytest.approx(0.025) and gone[-1] == 1
        # The parabola through its ends with the slope of the line where they meet.
        rest = np.arange(steps - even + 1)
        curve = (1 - 0.025 - 0.025 / even * rest[-1]) / rest[-1] ** 2
        np.testing.assert_allclose(gone[even:], 0.025 + 0.025 / even * rest + curve * rest**2, rtol=1e-9)
    assert levels("linear_quadratic", 1) == (SD.sigma_max, 0.0)


@pytest.mark.parametrize(("name", "options"), [
    ("beta", {"options": {"alpha": 0.01, "beta": 0.01}}), ("polyexponential", {"rho": 5000.0}),
])
def test_options_that_leave_steps_nothing_to_do_are_refused(name, options):
    with pytest.raises(InvalidRequest, match="without a change"):
        levels(name, 150, **options)


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
    assert find_schedule("ALIGN_YOUR_STEPS_gits").label == "Align Your Steps GITS"
    labels = ["Automatic", "Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform", "KL Optimal",
              "Align Your Steps", "Simple", "Normal", "DDIM", "Beta"]
    assert [schedule.label for schedule in SCHEDULES][:12] == labels


def test_an_unknown_schedule_is_refused_with_near_ones():
    with pytest.raises(InvalidRequest, match="Did you mean Karras"):
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
