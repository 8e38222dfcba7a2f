import base64
import json
import time
import urllib.request
from dataclasses import replace

import pytest

from modules.core.job import Job
from modules.core.request import Request
from modules.core.settings import Settings
from modules.launcher.flags import Flags
from modules.web.api.native import tell_all
from modules.web.live import Event
from tests.web.running import fake_engine, make_app, serving

BASE = "/darkroom/v1"
SMALL = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64}


def submit(client, **fields):
    answer = client.post(f"{BASE}/jobs", json=SMALL | fields)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_a_merge_is_tried_out_by_its_recipe(client, app) -> None:
    job = submit(client, merge={"model_a": "stand-in", "model_b": "stand-in", "alpha": 0.5})
    assert job["request"]["merge"]["name"] == "0.5(stand-in) + 0.5(stand-in)"
    assert submit(client)["request"]["merge"] is None
    for merge, status in (({"model_a": "none", "model_b": "stand-in"}, 404), ({"model_a": "stand-in"}, 422),
                          ({"model_a": "stand-in", "model_b": "stand-in", "path": "x"}, 422), ("x", 422)):
        assert client.post(f"{BASE}/jobs", json=SMALL | {"merge": merge}).status_code == status


def test_a_job_is_submitted_followed_and_fetched(client, app) -> None:
    answer = client.post(f"{BASE}/jobs", json=SMALL | {"seed": 7, "batch_count": 2})
    job = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == job["links"]["self"]
    assert job["state"] in ("queued", "running") and job["request"]["seed"] == 7 and job["origin"] == "api"
    text = client.get(job["links"]["events"]).text
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert names[-1] == "ended" and set(names) <= {"progress", "preview", "image", "ended"}
    ended = json.loads(text.split("data: ")[-1])
    assert ended["state"] == "finished" and [image["seed"] for image in ended["images"]] == ["7", "8"]
    picture = client.get(ended["images"][1]["url"])
    assert picture.headers["content-type"] == "image/png" and "immutable" in picture.headers["cache-control"]
    assert picture.content.startswith(b"\x89PNG")
    assert client.get(ended["images"][1]["thumbnail"]).headers["content-type"] == "image/jpeg"
    assert client.get(job["links"]["self"]).json()["images"] == ended["images"]
    assert "path" not in text and str(app.folders.outputs) not in text
    again = client.get(job["links"]["events"], headers={"last-event-id": "5"}).text
    assert again.count("event: ") == 1 and "event: ended" in again


@pytest.mark.parametrize("fields, said", [
    ({"widht": 64}, "widht"), ({"width": "wide"}, "width"), ({"width": 65}, "multiple of 8"), ({"steps": 0}, "steps"),
    ({"seed": 2**64}, "seed"), ({"kind": "img3img"}, "img3img"), ({"sampler": "Eular"}, "Euler"),
    ({"kind": "img2img"}, "pictures to begin from"), ({"init_images": ["0" * 32]}, "Only image to image"),
    ({"settings": {"nothing": 1}}, "nothing"), ({"settings": {"disabled_extensions": []}}, "disabled_extensions"),
    ({"plugins": {"frames": {"width": 99}}}, "frames.width"), ({"plugins": {"none": {}}}, "none"),
    ({"prompt": None}, "prompt"), ({"styles": "a"}, "styles"), ({"guidance_scale": 10**400}, "guidance_scale"),
])
def test_a_bad_field_is_named(client, app, fields, said) -> None:
    answer = client.post(f"{BASE}/jobs", json=SMALL | fields)
    assert answer.status_code == 422 and said in answer.json()["detail"]
    assert {"error", "message", "hint"} <= set(answer.json()) and app.jobs() == []


def test_what_is_not_there_is_not_found(client) -> None:
    for method, path in (("GET", "jobs/x"), ("GET", "jobs/x/events"), ("GET", "jobs/x/images/0"), ("DELETE", "jobs/x"),
                         ("POST", "jobs/x/skip"), ("GET", "jobs/x/preview"), ("GET", "nothing")):
        assert client.request(method, f"{BASE}/{path}").status_code == 404
    job = submit(client)
    for index in (99, -1):
        assert client.get(f"{BASE}/jobs/{job['id']}/images/{index}").status_code == 404
    assert client.get(f"{BASE}/jobs/{job['id']}/images/..%2f..%2fconfig.json").status_code in (404, 422)
    missing = client.post(f"{BASE}/jobs", json=SMALL | {"model": "stand in"}).json()
    assert missing["error"] == "NotFound" and "stand-in" in missing["hint"]


def test_settings_and_plugins_are_for_one_job(client, app) -> None:
    job = submit(client, settings={"CLIP_stop_at_last_layers": 2, "samples_format": "jpg"},
                 plugins={"frames": {"width": 3}})
    assert job["request"]["settings"]["CLIP_stop_at_last_layers"] == 2
    assert app.job(job["id"]).request.settings.samples_format == "jpg" and app.settings.get() == Settings()
    assert job["request"]["plugins"] == {"frames": {"width": 3}}


def test_the_queue_is_paged_moved_paused_and_cancelled(client, app) -> None:
    app.engine.hold.clear()
    ids = [submit(client)["id"] for _ in range(4)]
    page = client.get(f"{BASE}/jobs?limit=3").json()
    assert [job["id"] for job in page["jobs"]] == ids[:3] and page["more"] is True
    assert client.get(f"{BASE}/jobs?offset=3&limit=3").json()["more"] is False
    moved = client.post(f"{BASE}/queue/move", json={"id": ids[3], "before": ids[1]}).json()
    assert [job["id"] for job in moved["queued"]] == [ids[3], ids[1], ids[2]]
    assert client.delete(f"{BASE}/jobs/{ids[2]}").json()["state"] == "cancelled"
    assert client.post(f"{BASE}/queue/pause").json()["paused"] is True
    app.engine.hold.set()
    app.wait(ids[0], 10)
    queue = client.get(f"{BASE}/queue").json()
    assert queue["running"] == [] and [job["id"] for job in queue["queued"]] == [ids[3], ids[1]]
    status = client.get(f"{BASE}/status").json()
    assert status["queued"] == 2 and status["paused"] and status["engine"]["device"] == "fake"
    assert client.post(f"{BASE}/queue/resume").json()["paused"] is False
    assert app.wait(ids[1], 10).state == "finished"
    assert [job["id"] for job in client.get(f"{BASE}/jobs?state=cancelled").json()["jobs"]] == [ids[2]]
    assert client.get(f"{BASE}/jobs?state=lost").status_code == 422
    assert client.post(f"{BASE}/queue/move", json={"id": ids[1]}).status_code == 422


def test_only_the_job_that_is_meant_is_stopped(client, app) -> None:
    app.engine.hold.clear()
    running, waiting = submit(client, batch_count=3)["id"], submit(client)["id"]
    until_running(app, running)
    for action in ("interrupt", "skip", "stop-after"):
        refused = client.post(f"{BASE}/jobs/{waiting}/{action}")
        assert refused.status_code == 422 and "does not run" in refused.json()["message"]
    assert app.asked() == frozenset()
    assert client.post(f"{BASE}/jobs/{running}/skip").status_code == 200
    assert client.post(f"{BASE}/jobs/{running}/stop-after").status_code == 200
    assert app.asked() == {"skip", "stop"}
    assert client.post(f"{BASE}/jobs/{running}/interrupt").status_code == 200
    app.engine.hold.set()
    assert app.wait(running, 10).state == "interrupted" and app.wait(waiting, 10).state == "finished"
    assert app.asked() == frozenset()


def test_a_preview_is_shown_while_a_job_runs(client, app) -> None:
    app.engine.seconds_per_step = 0.02
    app.look()
    job = submit(client, steps=400)["id"]
    deadline = time.monotonic() + 10
    while (answer := client.get(f"{BASE}/jobs/{job}/preview")).status_code == 204:
        assert time.monotonic() < deadline
    assert answer.headers["content-type"] == "image/jpeg" and answer.headers["cache-control"] == "no-store"
    client.delete(f"{BASE}/jobs/{job}")
    assert app.wait(job, 10).state == "interrupted"
    assert client.get(f"{BASE}/jobs/{job}/preview").status_code == 204


def test_lists_name_what_there_is(client) -> None:
    assert client.get(f"{BASE}/models").json()[0]["name"] == "stand-in.safetensors"
    assert client.get(f"{BASE}/vaes").json() == []
    assert "Euler" in [one["name"] for one in client.get(f"{BASE}/samplers").json()]
    assert "Karras" in [one["label"] for one in client.get(f"{BASE}/schedules").json()]
    extensions = client.get(f"{BASE}/extensions").json()
    assert [(one["id"], one["error"]) for one in extensions] == [("frames", ""), ("bad", "ImportError: no")]
    assert client.get(f"{BASE}/memory").json()["ram"]["total"] == 3


def test_upscalers_are_listed_with_where_they_work(client) -> None:
    spaces = {one["name"]: one["space"] for one in client.get(f"{BASE}/upscalers").json()}
    assert list(spaces)[0] == "Latent" and (spaces["Latent (bicubic)"], spaces["Lanczos"]) == ("latent", "pixels")


def test_styles_are_made_replaced_and_removed(client, app) -> None:
    texts = {"prompt": "{prompt}, ink", "negative_prompt": "blur"}
    for name in ("Ink", "a/b, c"):
        assert client.put(f"{BASE}/styles/{name}", json=texts).json() == texts | {"name": name}
    client.put(f"{BASE}/styles/Ink", json={"prompt": "ink"})
    assert client.get(f"{BASE}/styles").json() == [
        {"name": "Ink", "prompt": "ink", "negative_prompt": ""}, texts | {"name": "a/b, c"}]
    job = submit(client, styles=["Ink"])
    assert job["request"]["prompt"] == "a cat, ink"
    assert [one["name"] for one in client.delete(f"{BASE}/styles/Ink").json()] == ["a/b, c"]
    assert client.delete(f"{BASE}/styles/Ink").status_code == 404
    assert client.put(f"{BASE}/styles/%23no", json=texts).status_code == 422
    assert client.put(f"{BASE}/styles/x", json=texts | {"more": 1}).status_code == 422


def test_hires_fix_is_a_field_like_any_other(client, app) -> None:
    job = submit(client, enable_hr=True, hr_scale=1.5, hr_upscaler="lanczos", tiling=True, refiner="stand-in")
    request = job["request"]
    assert (request["hr_scale"], request["hr_upscaler"], request["tiling"], request["refiner"]) == (
        1.5, "Lanczos", True, "stand-in.safetensors")
    assert app.wait(job["id"], 10).images[0].width == 96
    refused = client.post(f"{BASE}/jobs", json={"prompt": "a", "enable_hr": True, "hr_upscaler": "none such"})
    assert refused.status_code == 422 and "upscaler" in refused.json()["message"]


def test_settings_are_changed_together_or_not_at_all(client, app) -> None:
    changed = client.put(f"{BASE}/settings", json={"n_rows": 2, "emphasis": "No norm"})
    assert changed.json()["n_rows"] == 2 and app.settings.get().emphasis == "No norm"
    for bad, status in (({"n_rows": 3, "nothing": 1}, 422), ({"n_rows": 3, "emphasis": "Loud"}, 422),
                        ({"n_rows": 3, "disabled_extensions": ["frames"]}, 403),
                        ({"n_rows": 3, "sd_model_checkpoint": "gone"}, 404)):
        assert client.put(f"{BASE}/settings", json=bad).status_code == status
    assert app.settings.get().n_rows == 2 and client.get(f"{BASE}/settings").json()["n_rows"] == 2


def test_all_events_tell_of_every_job_and_of_the_queue() -> None:
    job = Job("j", "", "queued", Request())
    assert tell_all(Event("queue"), lambda _: {}) == "event: queue\ndata: {}\n\n"
    assert tell_all(Event("queued", "j", job), lambda one: {"id": one.id}) == 'event: progress\ndata: {"id": "j"}\n\n'


def until_running(app, job_id: str) -> None:
    deadline = time.monotonic() + 10
    while app.job(job_id).state != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_come_through_every_layer_while_the_job_runs(tmp_path) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path))
    app.engine.hold.clear()
    flags = replace(Flags(), nowebui=True, accounts=(("ann", "secret"),))
    account = {"Authorization": "Basic " + base64.b64encode(b"ann:secret").decode()}

    def asked(address: str) -> urllib.request.Request:
        return urllib.request.Request(address, headers=account)

    with serving(app, flags) as site:
        small = Request(prompt="a", steps=3, width=64, height=64)
        job = app.submit(small)
        with urllib.request.urlopen(asked(f"{site.url}{BASE}/jobs/{job.id}/events"), timeout=10) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.readline() == b"event: progress\n" and app.job(job.id).state != "finished"
            app.engine.hold.set()
            assert b"event: ended" in stream.read()
        with urllib.request.urlopen(asked(f"{site.url}{BASE}/events"), timeout=10) as stream:
            app.submit(small)
            lines = iter(stream.readline, b"")
            assert next(line for line in lines if line.startswith((b"event: ended", b":"))) == b"event: ended\n"
