import dataclasses
import math

import numpy as np
import pytest

from modules.core.errors import InvalidRequest
from modules.core.settings import Settings
from modules.sampling.runs import exact_steps, model_calls, prepare, truncate, truncate_to
from modules.sampling.samplers import SAMPLERS, Churn, Denoised, Sampler, find_sampler
from modules.sampling.schedules import find_schedule, schedule_sigmas
from modules.sampling.single_step import euler
from modules.sampling.spaces import flow_space, space_from_betas

SD, FLOW = space_from_betas(), flow_space()


def run_of(name, steps=20, schedule="Automatic", space=SD, **values):
    return prepare(find_sampler(name)[0], schedule, steps, space, Settings(**values))


@pytest.mark.parametrize(("name", "schedule"), [("DPM++ 2M", "Karras"), ("DPM++ SDE", "Karras"),
                                                ("Euler", "Automatic"), ("Euler a", "Automatic")])
def test_automatic_is_the_samplers_own(name, schedule):
    run = run_of(name)
    assert run.schedule.label == schedule
    assert run.sigmas == schedule_sigmas(find_schedule("Uniform" if schedule == "Automatic" else schedule), 20, SD)
    assert run_of(name, schedule="").sigmas == run.sigmas
    assert run_of(name, schedule=find_schedule("Exponential")).schedule.label == "Exponential"


def test_a_sigma_run_starts_from_noise_times_sigma():
    run = run_of("Euler", schedule="Karras")
    assert (run.start_scale, run.init_scale, run.end_scale) == (run.sigmas[0], 1.0, 1.0)
    assert run.noise_range == (run.sigmas[-2], run.sigmas[0])
    sgm = run_of("Euler", sgm_noise_multiplier=True)
    assert sgm.start_scale == pytest.approx(math.sqrt(1 + sgm.sigmas[0] ** 2))


def test_a_flow_run_starts_from_noise_alone():
    run = run_of("Euler", space=FLOW, sgm_noise_multiplier=True)
    assert (run.sigmas[0], run.start_scale, run.init_scale) == (1.0, 1.0, 0.0)


def test_a_timestep_run_starts_and_ends_variance_preserving():
    run = run_of("DDIM", schedule="Karras")
    assert run.schedule is None and run.timesteps == tuple(range(1, 1000, 50))
    assert run.sigmas == tuple(SD.sigmas[place] for place in range(951, 0, -50))
    assert run.start_scale == pytest.approx(1 / math.sqrt(SD.alphas_cumprod[951]))
    assert run.end_scale == pytest.approx(math.sqrt(SD.alphas_cumprod[1]))


def test_settings_reach_their_samplers_only():
    values = {"eta_ancestral": 0.5, "eta_ddim": 0.25, "s_churn": 3.0, "s_tmin": 0.1, "s_noise": 1.01,
              "uni_pc_order": 2, "uni_pc_variant": "bh2", "uni_pc_lower_order_final": False}
    assert run_of("Euler a", **values).options == {"eta": 0.5, "s_noise": 1.01}
    assert run_of("DPM++ SDE", **values).options == {"eta": 0.5, "s_noise": 1.01}
    assert run_of("DDIM", **values).options == {"eta": 0.25}
    assert run_of("DPM++ 2M", **values).options == {}
    assert run_of("UniPC", **values).options == {"order": 2, "variant": "bh2", "lower_order_final": False}
    churn = {"s_churn": 3.0, "s_tmin": 0.1, "s_noise": 1.01}
    assert run_of("Euler", **values).options == {**churn, "s_tmax": math.inf}
    assert run_of("Euler", s_tmax=5.0, **values).options == {**churn, "s_tmax": 5.0}


def test_every_setting_and_option_named_by_a_sampler_exists():
    for sampler in SAMPLERS:
        names = {*sampler.settings.values(), *sampler.level_settings.values()}
        assert names <= {field.name for field in dataclasses.fields(Settings)}
        known = {*sampler.sample.__kwdefaults__, *(field.name for field in dataclasses.fields(Churn))}
        assert {*sampler.settings, *sampler.options} <= known


def test_the_ends_and_rho_of_the_settings_are_carried_out():
    run = run_of("Euler", 9, "Karras", sigma_min=0.1, sigma_max=10.0, rho=5.0)
    expected = (10**0.2 + np.linspace(0, 1, 9) * (0.1**0.2 - 10**0.2)) ** 5
    np.testing.assert_allclose(run.sigmas, [*expected, 0])


@pytest.mark.parametrize("by", ["setting", "sampler"])
def test_the_next_to_last_level_can_be_left_out(by):
    sampler = dataclasses.replace(find_sampler("Euler")[0], discard_penultimate=by == "sampler")
    settings = Settings(always_discard_next_to_last_sigma=by == "setting")
    run = prepare(sampler, "Karras", 10, SD, settings)
    whole = schedule_sigmas(find_schedule("Karras"), 11, SD)
    assert run.sigmas == (*whole[:10], 0.0)


def test_leaving_out_a_level_gives_timestep_samplers_one_more():
    run = run_of("DDIM", 19, always_discard_next_to_last_sigma=True)
    assert run.timesteps == run_of("DDIM", 20).timesteps


@pytest.mark.parametrize("name", ["Euler", "DPM++ SDE", "DPM2", "Restart"])
@pytest.mark.parametrize(("strength", "steps"), [(0.0, 1), (0.04, 1), (0.5, 11), (0.75, 16), (1.0, 20), (7.0, 20)])
def test_img2img_runs_t_enc_plus_one_steps(name, strength, steps):
    run = run_of(name)
    part = truncate(run, strength)
    assert part.sigmas == run.sigmas[-(steps + 1):]
    assert (part.start_scale, part.init_scale) == (part.sigmas[0], 1.0)
    assert part.noise_range == run.noise_range


def test_img2img_of_a_flow_fades_the_picture():
    part = truncate(run_of("Euler", space=FLOW), 0.5)
    assert part.init_scale == pytest.approx(1 - part.sigmas[0]) and part.start_scale == part.sigmas[0]


@pytest.mark.parametrize(("name", "calls"), [("DDIM", 9), ("UniPC", 10)])
def test_img2img_with_timesteps_noises_one_timestep_above_where_it_begins(name, calls):
    """t_enc 10 of 20 steps: noised to timestep 501, sampled from 451 down, as A1111 does."""
    part = truncate(run_of(name), 0.5)
    assert part.sigmas[0] == pytest.approx(SD.sigmas[451], rel=1e-9) and model_calls(part) == calls
    variance_preserving = 1 / math.hypot(1, part.sigmas[0])
    assert part.init_scale * variance_preserving == pytest.approx(math.sqrt(SD.alphas_cumprod[501]))
    assert part.start_scale * variance_preserving == pytest.approx(math.sqrt(1 - SD.alphas_cumprod[501]))
    assert part.end_scale == pytest.approx(1 / math.hypot(1, part.sigmas[-1]))


@pytest.mark.parametrize("name", ["DDIM", "UniPC"])
def test_img2img_of_no_strength_with_timesteps_keeps_the_picture(name):
    part = truncate(run_of(name), 0.0)
    assert model_calls(part) == 0
    assert part.init_scale * part.end_scale == pytest.approx(math.sqrt(SD.alphas_cumprod[1]))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
@pytest.mark.parametrize("space", [SD, FLOW], ids=["epsilon", "flow"])
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 30, 40])
@pytest.mark.parametrize("strength", [None, 0.0, 0.4])
def test_the_announced_model_calls_are_made(sampler, space, steps, strength):
    run = prepare(sampler, "Automatic", steps, space, Settings())
    run = run if strength is None else truncate(run, strength)
    calls = []

    def denoise(x, sigma):
        calls.append(sigma)
        return Denoised(x * 0 + 0.3, x * 0 + 0.3)

    x = sampler.sample(denoise, np.ones(3) * run.start_scale, run.sigmas, space=space,
                       noise=lambda sigma, sigma_next: np.ones(3), **run.options)
    # How many an adaptive sampler makes is only known afterwards.
    assert len(calls) == model_calls(run) or sampler.alone
    assert np.isfinite(x).all()


@pytest.mark.parametrize(("name", "calls"), [("Euler", 20), ("Heun", 39), ("PLMS", 20), ("DPM fast", 20),
                                             ("Restart", 39), ("HeunPP2", 57), ("SA Solver", 20), ("LCM", 20)])
def test_model_calls_of_twenty_steps(name, calls):
    """PLMS has 19 steps, as DDIM, and calls twice in the first."""
    assert model_calls(run_of(name)) == calls


def test_a_second_order_run_that_ends_above_zero_calls_twice_to_the_end():
    run = dataclasses.replace(run_of("DPM++ SDE", 5), sigmas=(3.0, 2.0, 1.0))
    assert model_calls(run) == 4


def test_exact_steps_of_a_hires_pass():
    assert exact_steps(10, 0.5) == (20, 9) and exact_steps(10, 1.0) == (10, 9) and exact_steps(10, 0.0) == (10, 0)
    run = truncate_to(run_of("Euler", 20), 9)
    assert len(run.sigmas) == 11
    with pytest.raises(ValueError, match="t_enc"):
        truncate_to(run, 20)


def test_a_hires_pass_needs_a_schedule_with_levels_for_it():
    steps, t_enc = exact_steps(30, 0.01)
    with pytest.raises(InvalidRequest, match=r"only 999 steps, not 3000.*higher denoising strength"):
        truncate_to(run_of("Euler", steps, "DDIM"), t_enc)
    assert model_calls(truncate_to(run_of("Euler", steps, "Karras"), t_enc)) == 30


def test_malformed_runs_are_refused():
    with pytest.raises(InvalidRequest, match="steps"):
        run_of("DDIM", 0)
    with pytest.raises(InvalidRequest, match="no schedule"):
        run_of("UniPC", 5, "Karas")


def test_a_sampler_is_one_function_and_one_entry():
    """A new one needs nothing but itself."""
    mine = Sampler("Mine", euler, ("k_mine",), "exponential", options={"s_noise": 0.9})
    run = prepare(mine, "Automatic", 5, SD, Settings())
    assert run.options == {"s_noise": 0.9} and run.schedule.label == "Exponential"


@pytest.mark.parametrize("name", ["DPM++ 3M SDE", "DPM2", "DPM2 a"])
def test_samplers_that_leave_out_the_next_to_last_level(name):
    whole = schedule_sigmas(find_schedule("Karras"), 11, SD)
    assert run_of(name, 10, "Karras").sigmas == (*whole[:10], 0.0)


def test_a_run_between_ends_goes_from_the_schedules_first_level_to_the_models_lowest():
    for schedule in ("Automatic", "Karras", "SGM Uniform"):
        run = run_of("DPM fast", 9, schedule)
        assert (run.sigmas[0], run.sigmas[-1]) == pytest.approx((SD.sigma_max, SD.sigma_min))
        assert len(run.sigmas) == 10 and run.start_scale == run.sigmas[0]
    assert run_of("DPM fast", 9, sigma_min=0.1).sigmas[-1] == 0.1
    part = truncate(run_of("DPM fast", 20, "Karras"), 0.5)
    assert len(part.sigmas) == 12 and part.sigmas[-1] == SD.sigma_min


def test_lcm_is_laid_out_over_the_levels_of_its_training():
    """A1111: even places from timestep 999 to 19; levels that are no whole timestep are told as the nearest."""
    run = run_of("LCM", 4)
    places = np.linspace(49, 0, 4)
    expected = np.exp(np.interp(places, np.arange(50), np.log(SD.sigmas[19::20])))
    np.testing.assert_allclose(run.sigmas, [*expected, 0], rtol=1e-12)
    assert [run.space.timestep(sigma) for sigma in run.sigmas[:-1]] == [999, 679, 339, 19]
    assert run_of("LCM", 4, "Karras").sigmas[-2] == pytest.approx(SD.sigmas[19])


def test_the_settings_of_a_schedule_are_carried_out():
    run = run_of("Euler", 8, "Beta", beta_dist_alpha=0.9, beta_dist_beta=0.4)
    assert run.sigmas == schedule_sigmas(find_schedule("Beta"), 8, SD, options={"alpha": 0.9, "beta": 0.4})
    assert run.sigmas != run_of("Euler", 8, "Beta").sigmas
