import asyncio
import base64
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.app.messages import Look
from modules.core.settings import Settings
from modules.launcher.flags import Flags
from modules.library.inputs import Inputs
from modules.web.api.sdapi_models import Txt2ImgRequest
from tests.web.api.conftest import site_of

SMALL = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64}
INFO_KEYS = {
    "prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed",
    "all_subseeds", "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size",
    "restore_faces", "face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash",
    "seed_resize_from_w", "seed_resize_from_h", "denoising_strength", "extra_generation_params",
    "index_of_first_image", "infotexts", "styles", "job_timestamp", "clip_skip", "is_using_inpainting_conditioning",
    "version",
}

# What clients send, from their sources; the rest is as small as a test wants it.
CLIENTS = {
    "webuiapi": {
        "enable_hr": False, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0, "hr_resize_x": 0,
        "hr_resize_y": 0, "denoising_strength": 0.7, "firstphase_width": 0, "firstphase_height": 0, "prompt": "a",
        "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_h": 0,
        "seed_resize_from_w": 0, "batch_size": 1, "n_iter": 1, "steps": 2, "cfg_scale": 7.0, "width": 64, "height": 64,
        "restore_faces": False, "tiling": False, "do_not_save_samples": False, "do_not_save_grid": False,
        "negative_prompt": "", "eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1,
        "override_settings": {}, "override_settings_restore_afterwards": True, "sampler_name": "Euler a",
        "sampler_index": "Euler a", "scheduler": "automatic", "script_name": None, "script_args": [],
        "send_images": True, "save_images": False, "alwayson_scripts": {}, "use_deprecated_controlnet": False},
    "SillyTavern": {
        "url": "http://127.0.0.1", "auth": "", "prompt": "a", "negative_prompt": "b", "sampler_name": "DPM++ 2M",
        "scheduler": "Karras", "steps": 2, "cfg_scale": 7, "width": 64, "height": 64, "seed": None,
        "restore_faces": False, "enable_hr": False, "hr_upscaler": "Latent", "hr_scale": 1.5,
        "hr_additional_modules": [], "denoising_strength": 0.7, "hr_second_pass_steps": 0, "clip_skip": 1,
        "override_settings": {"CLIP_stop_at_last_layers": 2, "sd_vae": ""},
        "override_settings_restore_afterwards": True, "save_images": True, "send_images": True,
        "do_not_save_grid": False, "do_not_save_samples": False},
    "Open WebUI": {"prompt": "a", "batch_size": 1, "width": 64, "height": 64, "steps": 2, "negative_prompt": "bad",
                   "cfg_scale": 7.0, "sampler_name": "DPM++ 2M", "scheduler": "karras"},
    "LibreChat": {"prompt": "a", "negative_prompt": "b", "cfg_scale": 4.5, "steps": 2, "width": 64, "height": 64},
    "RisuAI": {"width": 64, "height": 64, "seed": -1, "steps": 2, "cfg_scale": 7.5, "prompt": "a",
               "negative_prompt": "b", "sampler_name": "Euler a", "enable_hr": False, "hr_scale": 1,
               "hr_upscaler": "None", "denoising_strength": 0.7},
    "text-generation-webui": {
        "prompt": "a", "seed": -1, "sampler_name": "DPM++ 2M Karras", "enable_hr": False, "hr_scale": 2,
        "hr_upscaler": "ESRGAN_4x", "denoising_strength": 0.5, "steps": 2, "cfg_scale": 7, "width": 64, "height": 64,
        "restore_faces": False, "override_settings_restore_afterwards": True, "negative_prompt": "b"},
    "Auto-Photoshop": {"prompt": "a", "negative_prompt": "", "steps": 2, "n_iter": 1, "sampler_index": "Euler",
                       "width": 64, "height": 64, "denoising_strength": 0.7, "batch_size": 1, "cfg_scale": 7,
                       "seed": "-1", "use_prompt_shortcut": True, "script_args": None, "alwayson_scripts": {}},
    "aiyabot": {"prompt": "a", "negative_prompt": "", "steps": 2, "width": 64, "height": 64, "cfg_scale": "7.0",
                "sampler_index": "Euler a", "seed": 17, "n_iter": 1, "styles": ["None"], "tiling": False,
                "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_model_checkpoint": "stand-in.safetensors"}},
}


def post(client, body, route="txt2img"):
    return client.post(f"/sdapi/v1/{route}", json=body)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_that_exists_gets_its_picture(client, name: str) -> None:
    answer = post(client, CLIENTS[name])
    assert answer.status_code == 200, answer.text
    content = answer.json()
    info = json.loads(content["info"])
    assert len(content["images"]) == 1 and len(info["infotexts"]) == 1
    assert Image.open(io.BytesIO(base64.b64decode(content["images"][0]))).size == (64, 64)
    assert info["all_seeds"] == [info["seed"]] and info["seed"] >= 0 and info["width"] == 64


def test_info_has_all_keys_and_parameters_echo_every_field(client) -> None:
    content = post(client, SMALL | {"seed": 5, "n_iter": 2}).json()
    info = json.loads(content["info"])
    assert set(info) >= INFO_KEYS
    assert info["all_seeds"] == [5, 6] and info["all_prompts"] == ["a cat"] * 2 and info["sampler_name"] == "Euler"
    assert info["sd_model_name"] == "stand-in.safetensors" and info["index_of_first_image"] == 0
    assert set(content["parameters"]) == set(Txt2ImgRequest.model_fields)
    assert content["parameters"]["cfg_scale"] == 7.0 and content["parameters"]["n_iter"] == 2


def test_defaults_are_those_of_a1111(client, app) -> None:
    post(client, {"prompt": "a"})
    request = app.jobs()[0].request
    assert (request.steps, request.guidance_scale, request.width, request.height, request.sampler, request.schedule
            ) == (50, 7.0, 512, 512, "Euler", "Automatic")
    assert request.save_images is False and app.jobs()[0].blocking and app.jobs()[0].origin == "api"


@pytest.mark.parametrize("sent, sampler, schedule", [
    ({"sampler_name": "DPM++ 2M Karras", "sampler_index": "Euler a"}, "DPM++ 2M", "Karras"),
    ({"sampler_index": "Euler a"}, "Euler a", "Automatic"),
    ({"sampler_name": "DDIM", "scheduler": "sgm_uniform"}, "DDIM", "SGM Uniform"),
    ({"sampler_name": "k_dpmpp_2m", "scheduler": "automatic"}, "DPM++ 2M", "Automatic"),
    ({"sampler_name": "DPM++ 2M Karras", "scheduler": "Exponential"}, "DPM++ 2M", "Exponential"),
    ({"sampler_name": None, "scheduler": None}, "Euler", "Automatic"),
])
def test_samplers_go_by_name_label_and_older_combined_names(client, app, sent, sampler, schedule) -> None:
    assert post(client, SMALL | sent).status_code == 200
    assert (app.jobs()[0].request.sampler, app.jobs()[0].request.schedule) == (sampler, schedule)


@pytest.mark.parametrize("sent, status, said", [
    ({"sampler_name": "Eular"}, 422, "Euler"),
    ({"scheduler": "Karas"}, 422, "Karras"),
    ({"width": 65}, 422, "multiple of 8"),
    ({"steps": 0}, 422, "steps"),
    ({"steps": "many"}, 422, "steps"),
    ({"seed": 2**64}, 422, "seed"),
    ({"seed": 10**400}, 422, "seed"),
    ({"cfg_scale": 1e999}, 422, "cfg_scale"),
    ({"override_settings": {"s_noise": 10**400}}, 422, "s_noise"),
    ({"batch_size": 1000}, 422, "batch_size"),
    ({"enable_hr": True, "hr_scale": 20}, 422, "hr_scale"),
    ({"enable_hr": True, "hr_upscaler": "4x-Super"}, 422, "4x-Super"),
    ({"enable_hr": True, "hr_sampler_name": "Eular"}, 422, "Euler"),
    ({"enable_hr": True, "hr_checkpoint_name": "gone"}, 404, "gone"),
    ({"enable_hr": True, "denoising_strength": 1.5}, 422, "denoising_strength"),
    ({"enable_hr": True, "firstphase_width": 60, "firstphase_height": 60}, 422, "width"),
    ({"restore_faces": True}, 422, "codeformer-v0.1.0.pth"),
    ({"refiner_checkpoint": "xl"}, 404, "xl"),
    ({"firstpass_image": "aGVsbG8=", "enable_hr": True}, 422, "no picture"),
    ({"script_name": "X/Y plot"}, 422, "X/Y plot"),
    ({"alwayson_scripts": {"ControlNet": {"args": []}}}, 422, "ControlNet"),
    ({"alwayson_scripts": {"Picture Frames": {"args": [True, 10]}}}, 422, "width"),
    ({"alwayson_scripts": {"Picture Frames": {"args": "no"}}}, 422, "args"),
    ({"override_settings": {"sd_model_checkpoint": "nothing"}}, 404, "nothing"),
    ({"override_settings": {"CLIP_stop_at_last_layers": 99}}, 422, "CLIP_stop_at_last_layers"),
    ({"override_settings": {"x": {"y": [1e999]}}}, 422, "not finite"),
    ({"force_task_id": "../x"}, 422, "id"),
    ({"prompt": "x" * 200_001}, 422, "200,000"),
    ({"prompt": "broken"}, 507, "Too big. Make it smaller."),
])
def test_what_cannot_be_done_is_said_with_the_field(client, app, sent, status, said) -> None:
    content = json.dumps(SMALL | sent).replace("Infinity", "1e999")
    answer = client.post("/sdapi/v1/txt2img", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert {"error", "detail", "body", "errors"} <= set(body) and said in body["detail"]
    assert [job for job in app.jobs() if job.state == "finished"] == []
    assert post(client, SMALL).status_code == 200


def test_a_picture_takes_the_place_of_the_first_pass_of_hires_fix(client, app) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    post(client, SMALL | {"enable_hr": True, "firstpass_image": picture})
    assert Inputs(app.folders.inputs).open(app.jobs()[0].request.firstpass_image).getpixel((0, 0)) == (255, 0, 0)
    post(client, SMALL | {"firstpass_image": picture})
    assert app.jobs()[0].request.firstpass_image == ""


def test_hires_fix_is_asked_for_in_full(client, app) -> None:
    sent = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "lanczos", "hr_second_pass_steps": 7,
            "denoising_strength": 0.4, "hr_checkpoint_name": "stand-in", "hr_sampler_name": "DPM++ 2M Karras",
            "hr_scheduler": None, "hr_prompt": "a big cat", "hr_negative_prompt": "blur", "hr_cfg": 3}
    content = post(client, SMALL | sent).json()
    request = app.jobs()[0].request
    assert (request.enable_hr, request.hr_scale, request.hr_upscaler, request.hr_second_pass_steps,
            request.denoising_strength) == (True, 1.5, "Lanczos", 7, 0.4)
    assert (request.hr_checkpoint, request.hr_sampler, request.hr_schedule) == (
        "stand-in.safetensors", "DPM++ 2M", "Karras")
    assert (request.hr_prompt, request.hr_negative_prompt, request.hr_guidance_scale) == ("a big cat", "blur", 3.0)
    assert Image.open(io.BytesIO(base64.b64decode(content["images"][0]))).size == (96, 96)
    info = json.loads(content["info"])
    assert (info["width"], info["denoising_strength"]) == (64, 0.4)
    assert info["extra_generation_params"] == {"Hires upscale": "1.5", "Hires upscaler": "Lanczos"}


@pytest.mark.parametrize("words", [
    {}, {"hr_checkpoint_name": None, "hr_sampler_name": None, "hr_scheduler": None, "hr_upscaler": None},
    {"hr_checkpoint_name": "Use same checkpoint", "hr_sampler_name": "Use same sampler",
     "hr_scheduler": "Use same scheduler", "refiner_checkpoint": "None"},
    {"hr_checkpoint_name": "", "hr_sampler_name": "", "hr_scheduler": "", "refiner_checkpoint": ""},
])
def test_the_hires_pass_is_like_the_first_unless_it_is_said(client, app, words) -> None:
    assert post(client, SMALL | {"enable_hr": True} | words).status_code == 200
    request = app.jobs()[0].request
    assert (request.hr_checkpoint, request.hr_sampler, request.hr_schedule, request.refiner) == ("", "", "", "")
    assert (request.hr_upscaler, request.hr_scale, request.denoising_strength) == ("Latent", 2.0, 0.7)


@pytest.mark.parametrize("first, expected", [
    ({"firstphase_width": 64, "firstphase_height": 128}, (64, 128, 256, 512)),
    ({"firstphase_width": 64}, (64, 128, 256, 512)),
    ({"firstphase_height": 128}, (64, 128, 256, 512)),
    ({"firstphase_width": 0, "firstphase_height": 0}, (256, 512, 0, 0)),
])
def test_a_first_pass_with_a_size_of_its_own_makes_the_size_the_results(client, app, first, expected) -> None:
    sent = {"enable_hr": True, "width": 256, "height": 512, "hr_scale": 1}
    assert post(client, SMALL | sent | first).status_code == 200
    request = app.jobs()[0].request
    assert (request.width, request.height, request.hr_resize_x, request.hr_resize_y) == expected
    post(client, SMALL | first)
    assert (app.jobs()[0].request.width, app.jobs()[0].request.hr_resize_x) == (64, 0)


def test_tiling_and_the_refiner_reach_the_request(client, app) -> None:
    post(client, SMALL | {"tiling": True, "refiner_checkpoint": "stand-in", "refiner_switch_at": 0.6,
                          "s_min_uncond": 1.5})
    request = app.jobs()[0].request
    assert request.settings.s_min_uncond == 1.5
    assert (request.tiling, request.refiner, request.refiner_switch_at) == (True, "stand-in.safetensors", 0.6)


@pytest.mark.parametrize("content", [b"", b"no", b"[" * 100_000, b'{"seed": NaN}', b'{"prompt": 5}', b"null", b"[]",
                                     b'{"seed": ' + b"9" * 5000 + b"}", b"\xff\xfe", b'{"steps": 1e400}'])
def test_bodies_of_other_kinds_are_refused(client, content: bytes) -> None:
    answer = client.post("/sdapi/v1/txt2img", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422) and answer.json()["error"] and answer.json()["detail"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_value_of_any_field_breaks_the_server(client, data) -> None:
    name = data.draw(st.sampled_from(sorted(Txt2ImgRequest.model_fields)))
    body = SMALL | {"steps": 0} | {name: data.draw(JSON)}
    content = json.dumps(body)
    answer = client.post("/sdapi/v1/txt2img", content=content, headers={"content-type": "application/json"})
    assert answer.status_code < 500 or name == "prompt"
    for route in ("options", "png-info"):
        value = json.dumps({data.draw(st.sampled_from(["image", "s_noise", "n_rows", "sd_vae"])): body[name]})
        posted = client.post(f"/sdapi/v1/{route}", content=value, headers={"content-type": "application/json"})
        assert posted.status_code < 500


def test_overrides_are_for_one_request_unless_they_are_to_stay(client, app) -> None:
    before = app.settings.get()
    sent = {"CLIP_stop_at_last_layers": 2, "return_grid": False, "no_such": 1, "disabled_extensions": ["x"]}
    content = post(client, SMALL | {"override_settings": sent, "eta": 0.5, "s_churn": 3}).json()
    used = app.jobs()[0].request.settings
    assert (used.CLIP_stop_at_last_layers, used.return_grid, used.eta_ancestral, used.eta_ddim, used.s_churn
            ) == (2, False, 0.5, 0.5, 3.0)
    assert used.disabled_extensions == () and app.settings.get() == before
    assert len(json.loads(content["info"])["warnings"]) == 2
    kept = {"override_settings": {"CLIP_stop_at_last_layers": 3}, "override_settings_restore_afterwards": False}
    post(client, SMALL | kept | {"eta": 0.25})
    assert app.settings.get() == replace(before, CLIP_stop_at_last_layers=3)


def test_an_infotext_fills_what_is_not_sent(client, app) -> None:
    text = ("a fox\nNegative prompt: fog\nSteps: 3, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4, Seed: 12, "
            "Size: 64x128, Model: stand-in, Clip skip: 2, RNG: CPU, Frame width: 5")
    assert post(client, {"infotext": text, "steps": 1, "negative_prompt": None}).status_code == 200
    request = app.jobs()[0].request
    assert (request.prompt, request.negative_prompt, request.steps, request.sampler, request.schedule, request.seed
            ) == ("a fox", "fog", 1, "DPM++ 2M", "Karras", 12)
    assert (request.width, request.height, request.guidance_scale) == (64, 128, 4.0)
    assert request.settings.CLIP_stop_at_last_layers == 2 and request.plugins["frames"]["width"] == 5
    assert request.enable_hr is False and request.tiling is False
    hires = (f"{text}, Denoising strength: 0.3, Hires resize: 128x256, Hires upscaler: Nearest, Tiling: True, "
             "Hires checkpoint: stand-in, Refiner: lost [0123456789], Refiner switch at: 0.5")
    info = json.loads(post(client, {"infotext": hires, "hr_upscaler": "Lanczos"}).json()["info"])
    request = app.jobs()[0].request
    assert (request.enable_hr, request.denoising_strength, request.hr_resize_x, request.hr_resize_y, request.tiling
            ) == (True, 0.3, 128, 256, True)
    assert (request.hr_upscaler, request.hr_checkpoint, request.refiner) == ("Lanczos", "stand-in.safetensors", "")
    assert info["warnings"] == ["The model lost [0123456789] is not here; there is no refiner."]
    gone = json.loads(post(client, SMALL | {"infotext": text.replace("stand-in", "lost")}).json()["info"])
    assert "lost" in gone["warnings"][0]


@pytest.mark.parametrize("script, expected", [
    ({"args": {"width": 4}}, {"width": 4}),
    ({"args": [{"colour": "white"}]}, {"colour": "white"}),
    ({"args": [False, 7]}, {"enabled": False, "width": 7}),
    ({"args": [True, 7, "white", "more", 9]}, {"enabled": True, "width": 7, "colour": "white"}),
    ({}, {}),
])
def test_scripts_args_become_a_plugins_parameters(client, app, script, expected) -> None:
    assert post(client, SMALL | {"alwayson_scripts": {"picture FRAMES": script}}).status_code == 200
    assert app.jobs()[0].request.plugins == {"frames": expected}


def test_styles_are_applied_and_named(client, app) -> None:
    app.folders.styles.write_text("name,prompt,negative_prompt\nfilm,\"{prompt}, film\",blur\n", "utf-8")
    assert client.get("/sdapi/v1/prompt-styles").json() == [
        {"name": "film", "prompt": "{prompt}, film", "negative_prompt": "blur"}]
    info = json.loads(post(client, SMALL | {"styles": ["film"]}).json()["info"])
    assert info["prompt"] == "a cat, film" and info["negative_prompt"] == "blur" and info["styles"] == ["film"]


def test_pictures_are_left_out_when_they_are_not_wanted(client, app) -> None:
    assert post(client, SMALL | {"send_images": False}).json()["images"] == []
    post(client, SMALL | {"save_images": True})
    assert app.jobs()[0].request.save_images and app.jobs()[0].request.save_grid


def test_an_api_job_alone_is_nobody_looking(client, app) -> None:
    post(client, SMALL)
    assert not any(isinstance(command, Look) and command.watching for command in app.engine.commands)


def test_any_number_of_callers_wait_without_a_thread_each(app) -> None:
    app.engine.hold.clear()
    callers = 200

    async def ask() -> None:
        transport = httpx.ASGITransport(site_of(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
            waiting = [asyncio.create_task(client.post("/sdapi/v1/txt2img", json=SMALL | {"steps": 1}))
                       for _ in range(callers)]
            while (await client.get("/internal/pending-tasks")).json()["size"] < callers - 1:
                await asyncio.sleep(0.01)
            assert (await client.get("/internal/ping")).json() == {}
            assert (await client.get("/sdapi/v1/progress")).json()["state"]["job_count"] == 1
            app.engine.hold.set()
            answers = await asyncio.gather(*waiting)
            assert {answer.status_code for answer in answers} == {200}

    asyncio.run(ask())


def test_progress_is_idle_then_under_way_with_a_preview(client, app) -> None:
    idle = client.get("/sdapi/v1/progress").json()
    assert idle["progress"] == 0 and idle["state"]["job_count"] == 0 and idle["current_image"] is None
    app.engine.seconds_per_step = 0.02
    app.look()
    job = app.submit(_request(steps=200, batch_count=2))
    found = until(lambda: client.get("/sdapi/v1/progress").json(), lambda answer: answer["current_image"])
    assert 0 < found["progress"] < 1 and found["state"]["job"] == job.id and found["state"]["job_count"] == 2
    assert found["state"]["sampling_step"] > 0 and found["state"]["sampling_steps"] == 200
    assert base64.b64decode(found["current_image"]).startswith(b"\xff\xd8")
    assert client.get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
    assert client.post("/sdapi/v1/skip").json() is None
    assert client.post("/sdapi/v1/interrupt", json={}).json() == {}
    assert app.wait(job.id, 10).state == "interrupted"


def test_interrupt_is_seen_in_the_state_and_answers_the_caller(app) -> None:
    app.engine.hold.clear()

    async def ask() -> None:
        transport = httpx.ASGITransport(site_of(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as client:
            waiting = asyncio.create_task(client.post("/sdapi/v1/txt2img", json=SMALL | {"force_task_id": "task(1)"}))
            while app.running() is None:
                await asyncio.sleep(0.01)
            await client.post("/sdapi/v1/interrupt")
            assert (await client.get("/sdapi/v1/progress")).json()["state"]["interrupted"] is True
            app.engine.hold.set()
            answer = await waiting
            assert answer.status_code == 409 and "interrupted" in answer.json()["detail"]

    asyncio.run(ask())
    assert app.job("task(1)").state == "interrupted"


def test_options_go_back_as_they_came(client, app) -> None:
    shown = client.get("/sdapi/v1/options").json()
    assert set(vars(Settings())) <= set(shown) and shown["sd_model_checkpoint"] == "stand-in.safetensors"
    before = app.settings.get()
    assert client.post("/sdapi/v1/options", json=shown).json() is None
    assert app.settings.get() == before
    changes = {"CLIP_stop_at_last_layers": 2, "n_rows": 3.0, "sd_backend": "x", "disabled_extensions": ["frames"],
               "sd_vae": None}
    assert client.post("/sdapi/v1/options", json=changes).status_code == 200
    assert app.settings.get() == replace(before, CLIP_stop_at_last_layers=2, n_rows=3)
    for bad, status in (({"sd_model_checkpoint": "gone"}, 404), ({"n_rows": "x"}, 422), ({"emphasis": "Loud"}, 422)):
        answer = client.post("/sdapi/v1/options", json=bad)
        assert answer.status_code == status and answer.json()["message"]
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "stand-in"}).status_code == 200
    assert app.settings.get().sd_model_checkpoint == "stand-in.safetensors"


def test_png_info_reads_base64_with_and_without_a_prefix(client) -> None:
    carried, buffer = PngInfo(), io.BytesIO()
    text = "a fox\nNegative prompt: fog\nSteps: 3, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 8x8"
    carried.add_text("parameters", text)
    carried.add_text("Software", "test")
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=carried)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    uri, wrapped = f"data:image/png;base64,{encoded}", f"\n{encoded[:40]}\n{encoded[40:]}"
    for image in (encoded, uri, encoded.rstrip("="), wrapped):
        answer = post(client, {"image": image}, "png-info").json()
        assert answer["info"] == text and answer["items"] == {"Software": "test"}
        assert answer["parameters"]["Prompt"] == "a fox" and answer["parameters"]["Steps"] == "3"
    for bad in ("", "!!", encoded[:60], "/etc/passwd", "file:///etc/passwd", base64.b64encode(b"text").decode()):
        assert post(client, {"image": bad}, "png-info").status_code == 422, bad
    assert post(client, {}, "png-info").json()["message"] == "image: Field required."
    for local in ("http://127.0.0.1:1/x.png", "http://[::1]/x.png"):
        assert post(client, {"image": local}, "png-info").status_code == 403


def test_lists_have_what_clients_look_for(client, app) -> None:
    get = {name: client.get(f"/sdapi/v1/{name}").json() for name in (
        "samplers", "schedulers", "sd-models", "sd-vae", "upscalers", "latent-upscale-modes", "hypernetworks",
        "face-restorers", "realesrgan-models", "embeddings", "loras", "scripts", "script-info", "extensions",
        "cmd-flags", "memory")}
    assert {"DPM++ 2M", "Euler a", "DDIM", "UniPC"} <= {one["name"] for one in get["samplers"]}
    assert all(isinstance(value, str) for one in get["samplers"] for value in one["options"].values())
    assert {"automatic", "karras", "sgm_uniform"} <= {one["name"] for one in get["schedulers"]}
    assert get["sd-models"][0]["title"] == "stand-in.safetensors" and get["sd-models"][0]["model_name"] == "stand-in"
    assert [one["name"] for one in get["upscalers"]][:4] == ["None", "Lanczos", "Nearest", "Bicubic"]
    assert [one["name"] for one in get["latent-upscale-modes"]] == [
        "Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic antialiased)", "Latent (nearest)",
        "Latent (nearest-exact)"]
    assert get["embeddings"] == {"loaded": {}, "skipped": {}}
    assert get["loras"] == get["hypernetworks"] == []
    assert get["scripts"] == {
        "txt2img": ["picture frames", "x/y/z plot"],
        "img2img": ["picture frames", "outpainting mk2", "poor man's outpainting", "x/y/z plot"]}
    assert [one["label"] for one in get["script-info"][0]["args"]] == ["Enable frames", "Frame width", "Frame colour"]
    assert [(one["name"], one["enabled"]) for one in get["extensions"]] == [("frames", True), ("bad", True)]
    assert get["cmd-flags"]["api_auth"] == "" and get["memory"]["ram"]["total"] == 3
    assert get["memory"]["cuda"] == {"error": "unavailable"}


@pytest.mark.parametrize("route", ["refresh-checkpoints", "refresh-vae", "refresh-loras", "refresh-embeddings",
                                   "unload-checkpoint", "reload-checkpoint"])
def test_actions_answer(client, route: str) -> None:
    assert client.post(f"/sdapi/v1/{route}").status_code == 200


def test_unloading_reaches_the_engine(client, app) -> None:
    client.post("/sdapi/v1/unload-checkpoint")
    assert "Unload" in [type(command).__name__ for command in app.engine.commands]


def test_routes_of_later_versions_are_not_there(client) -> None:
    for route in ("interrogate", "unload-upscaler"):
        assert post(client, {}, route).status_code == 404


def test_without_the_flag_the_api_says_how_to_turn_it_on(app) -> None:
    off = TestClient(site_of(app, Flags()), base_url="http://localhost")
    answer = off.post("/sdapi/v1/txt2img", json=SMALL)
    assert answer.status_code == 404 and "--api" in answer.json()["hint"]
    assert off.get("/darkroom/v1/status").status_code == 200
    assert TestClient(site_of(app, replace(Flags(), nowebui=True)), base_url="http://localhost").get(
        "/sdapi/v1/samplers").status_code == 200


def test_schemas_are_complete(client) -> None:
    schema = client.get("/openapi.json").json()
    body = schema["components"]["schemas"]["Txt2ImgRequest"]["properties"]
    assert body["steps"]["default"] == 50 and body["cfg_scale"]["default"] == 7.0 and len(body) == 56
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            assert route.get("description"), (method, path)
            assert "content" in route["responses"].get("200", route["responses"].get("202", {})), (method, path)


def until(ask, wanted, seconds: float = 10.0):
    """Ask until the answer is what is wanted."""
    deadline = time.monotonic() + seconds
    while not wanted(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.01)
    return answer


def _request(**fields):
    from modules.core.request import Request

    return Request(prompt="a", width=64, height=64, **fields)


def test_no_route_of_the_api_imports_gradio() -> None:
    import subprocess
    import sys

    code = "import sys, modules.web.api.mount, modules.web.protection; print('gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == "False"
