import io
import zipfile
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.request import Request
from modules.core.result import Failure
from modules.host.discover import Found
from modules.web.answers import add_error_answers
from modules.web.routes import ASSETS, asset_version, router
from modules.web.tabs import txt2img
from tests.web.running import fake_engine, make_app

OURS = {"x-darkroom": "page"}
SMALL = Request(prompt="a cat", steps=2, width=64, height=64)


@pytest.fixture
def app(tmp_path: Path):
    engine = fake_engine(tmp_path, failure={"broken": Failure("OutOfMemory", "Too big.", "Make it smaller.", 507)})
    folder = tmp_path / "extensions" / "bad"
    built = make_app(tmp_path, engine, (Found("bad", folder, None, "ImportError: no"),))
    built.start()
    yield built
    built.close()


@pytest.fixture
def client(app):
    site = FastAPI()
    add_error_answers(site)
    site.include_router(router(app))
    return TestClient(site, raise_server_exceptions=False)


def test_assets_are_kept_for_ever_under_their_version_only(client) -> None:
    for path in ASSETS.iterdir():
        answer = client.get(f"/darkroom/assets/{asset_version()}/{path.name}")
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert client.get("/darkroom/assets/old/page.js").headers["cache-control"] == "no-store"
    assert client.get(f"/darkroom/assets/{asset_version()}/..%2fsite.py").status_code == 404


def test_assets_name_no_other_site() -> None:
    for path in ASSETS.iterdir():
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, path.name


@pytest.mark.parametrize("path", ["queue/pause", "queue/interrupt", "jobs/x/cancel", "pnginfo", "paste"])
def test_another_web_site_cannot_change_anything(client, app, path: str) -> None:
    answer = client.post(f"/darkroom/page/{path}", content=b"{}")
    assert answer.status_code == 403 and answer.json()["error"] == "Forbidden"
    assert app.paused is False


def test_the_session_shows_jobs_under_way_and_the_last_that_ended(client, app) -> None:
    done = app.wait(app.submit(SMALL).id, 5)
    app.engine.hold.clear()
    running, waiting = app.submit(SMALL), app.submit(SMALL)
    foreign = app.submit(SMALL, origin="api")
    answer = client.get("/darkroom/page/session").json()
    assert [job["id"] for job in answer["active"]] == [running.id, waiting.id]
    assert answer["last"]["id"] == answer["pictures"]["id"] == done.id and answer["models"] == 1
    assert foreign.id not in str(answer)
    assert "request" not in answer["last"] and "path" not in answer["last"]["images"][0]


def test_the_session_keeps_the_last_pictures_when_a_job_without_any_ended_after_them(client, app) -> None:
    done = app.wait(app.submit(SMALL).id, 5)
    app.engine.hold.clear()
    stopped = app.submit(SMALL)
    app.cancel(stopped.id)
    app.engine.hold.set()
    app.wait(stopped.id, 5)
    answer = client.get("/darkroom/page/session").json()
    assert (answer["last"]["id"], answer["pictures"]["id"]) == (stopped.id, done.id)


def test_a_long_queue_hides_neither_its_end_nor_the_last_pictures(client, app) -> None:
    done = app.wait(app.submit(SMALL).id, 5)
    app.pause()
    waiting = [app.submit(SMALL).id for _ in range(105)]
    session, queue = (client.get(f"/darkroom/page/{name}").json() for name in ("session", "queue"))
    assert [job["id"] for job in session["active"]] == [job["id"] for job in queue["queued"]] == waiting
    assert session["pictures"]["id"] == queue["ended"][0]["id"] == done.id
    assert session["paused"] is True


def test_pictures_come_whole_small_and_together(client, app) -> None:
    job = app.wait(app.submit(Request(prompt="a", steps=1, width=128, height=64, batch_count=2)).id, 5)
    whole = client.get(f"/darkroom/page/jobs/{job.id}/pictures/0")
    assert whole.content == Path(job.images[0].path).read_bytes() and "immutable" in whole.headers["cache-control"]
    small = Image.open(io.BytesIO(client.get(f"/darkroom/page/jobs/{job.id}/pictures/1?size=32").content))
    assert small.size == (32, 16)
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/darkroom/page/jobs/{job.id}/pictures.zip").content))
    assert archive.namelist() == [Path(image.path).name for image in job.images]
    assert client.get(f"/darkroom/page/jobs/{job.id}/pictures/2").status_code == 404
    assert client.get("/darkroom/page/jobs/none/pictures/0").status_code == 404
    Path(job.images[0].path).unlink()
    assert client.get(f"/darkroom/page/jobs/{job.id}/pictures/0").status_code == 404


def test_events_tell_the_end_of_a_job_and_then_stop(client, app) -> None:
    job = app.submit(Request(prompt="a cat", steps=3, width=64, height=64))
    text = client.get(f"/darkroom/page/jobs/{job.id}/events").text
    names = [line.split(": ")[1] for line in text.splitlines() if line.startswith("event: ")]
    assert names[-1] == "ended" and names.count("ended") == 1 and set(names) <= {"progress", "preview", "image",
                                                                                 "ended"}
    again = client.get(f"/darkroom/page/jobs/{job.id}/events").text
    assert again.count("event: ") == 1 and "event: ended" in again
    assert client.get("/darkroom/page/jobs/none/events").status_code == 404


def test_the_queue_is_listed_reordered_cancelled_and_paused(client, app) -> None:
    app.engine.hold.clear()
    running, *waiting = (app.submit(SMALL).id for _ in range(4))
    act = {"headers": OURS}
    client.post(f"/darkroom/page/jobs/{waiting[2]}/move", json={"before": waiting[0]}, **act)
    client.post(f"/darkroom/page/jobs/{waiting[1]}/cancel", json={}, **act)
    queue = client.get("/darkroom/page/queue").json()
    assert [job["id"] for job in queue["running"]] == [running]
    assert [job["id"] for job in queue["queued"]] == [waiting[2], waiting[0]]
    assert queue["ended"][0]["id"] == waiting[1] and queue["queued"][0]["prompt"] == "a cat"
    assert client.post(f"/darkroom/page/jobs/{waiting[1]}/move", json={"before": None}, **act).status_code == 422
    assert client.post(f"/darkroom/page/jobs/{waiting[1]}/forget", json={}, **act).status_code == 200
    assert client.post("/darkroom/page/queue/pause", json={}, **act).json() == {"paused": True}
    app.engine.hold.set()
    app.wait(running, 5)
    assert app.job(waiting[2]).state == "queued"
    client.post("/darkroom/page/queue/resume", json={}, **act)
    assert app.wait(waiting[0], 5).state == "finished"
    assert client.post("/darkroom/page/queue/explode", json={}, **act).status_code == 404


def test_a_failed_job_carries_what_happened_and_what_to_do(client, app) -> None:
    job = app.wait(app.submit(Request(prompt="broken", steps=1)).id, 5)
    view = client.get("/darkroom/page/session").json()["last"]
    assert view["id"] == job.id
    assert view["failure"] == {"error": "OutOfMemory", "message": "Too big.", "hint": "Make it smaller.",
                               "status": 507}


def test_the_gallery_finds_shows_and_deletes(client, app) -> None:
    job = app.wait(app.submit(Request(prompt="zebra", steps=1, width=64, height=64)).id, 5)
    app.wait(app.submit(SMALL).id, 5)
    found = client.get("/darkroom/page/gallery?text=zebra").json()
    assert found["count"] == 1 and "zebra" in found["pictures"][0]["infotext"]
    picture = found["pictures"][0]
    assert client.get("/" + picture["url"]).content == Path(job.images[0].path).read_bytes()
    assert client.get("/" + picture["thumbnail"]).headers["content-type"] == "image/jpeg"
    assert client.post(f"/darkroom/page/gallery/{picture['id']}/delete", json={}, headers=OURS).status_code == 200
    assert not Path(job.images[0].path).exists()
    assert client.get("/" + picture["url"]).status_code == 404
    assert client.get("/darkroom/page/gallery?limit=1").json()["count"] == 1


def test_a_pasted_infotext_waits_in_the_stored_form(client, app) -> None:
    app.forms.save("", txt2img.TAB, {"batch_size": 3})
    text = "a fox\nSteps: 33, Sampler: Euler a, CFG scale: 4, Seed: 12, Size: 320x256, RNG: CPU"
    assert client.post("/darkroom/page/paste", json={"infotext": text}, headers=OURS).json()["pasted"] == []
    stored = app.forms.load("", txt2img.TAB)
    assert (stored["prompt"], stored["steps"], stored["width"], stored["batch_size"]) == ("a fox", 33, 320, 3)


def test_png_info_reads_what_a_picture_carries_and_refuses_what_is_none(client) -> None:
    carried, buffer = PngInfo(), io.BytesIO()
    carried.add_text("parameters", "a fox\nSteps: 3")
    carried.add_text("Software", "test")
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=carried)
    post = {"headers": OURS | {"content-type": "application/octet-stream"}}
    answer = client.post("/darkroom/page/pnginfo", content=buffer.getvalue(), **post).json()
    assert answer["infotext"].startswith("a fox") and answer["items"]["Software"] == "test"
    for bad in (b"", b"not a picture", buffer.getvalue()[:40]):
        refused = client.post("/darkroom/page/pnginfo", content=bad, **post)
        assert refused.status_code == 422 and refused.json()["message"]


def test_tokens_are_counted_by_name(client) -> None:
    answer = client.post("/darkroom/page/tokens", json={"one": "a cat", "two": ""}, headers=OURS).json()
    assert answer == {"one": [2, 75], "two": [0, 75]}
    assert client.post("/darkroom/page/tokens", json={"one": 5}, headers=OURS).status_code == 422


def test_extensions_are_listed_with_their_failures_and_switched(client, app) -> None:
    listed = client.get("/darkroom/page/extensions").json()["extensions"]
    assert [(one["id"], one["enabled"], one["error"]) for one in listed] == [("bad", True, "ImportError: no")]
    switched = client.post("/darkroom/page/extensions/bad/switch", json={"enabled": False}, headers=OURS).json()
    assert switched["extensions"][0]["enabled"] is False and switched["extensions"][0]["pending"] is True
    assert app.settings.get().disabled_extensions == ("bad",)
    client.post("/darkroom/page/extensions/bad/switch", json={"enabled": True}, headers=OURS)
    assert app.settings.get().disabled_extensions == ()
    assert client.post("/darkroom/page/extensions/none/switch", json={"enabled": True}, headers=OURS).status_code == 404


def test_styles_are_listed_saved_and_deleted(client, app) -> None:
    assert client.get("/darkroom/page/styles").json() == {"styles": []}
    style = {"name": "Ink, black", "prompt": "{prompt}, ink", "negative_prompt": ""}
    assert client.post("/darkroom/page/styles", json=style, headers=OURS).json() == {"styles": [style]}
    assert [field.choices for field in txt2img.form(app) if field.name == "styles"] == [("Ink, black",)]
    refused = client.post("/darkroom/page/styles", json={"name": "# no"}, headers=OURS)
    assert refused.status_code == 422 and "name" in refused.json()["message"]
    assert client.post("/darkroom/page/styles", json=style).status_code == 403
    gone = client.post("/darkroom/page/styles/delete", json={"name": "Ink, black"}, headers=OURS)
    assert gone.json() == {"styles": []}
    assert client.post("/darkroom/page/styles/delete", json={"name": "x"}, headers=OURS).status_code == 404


def test_the_queue_says_to_which_size_hires_fix_goes(client, app) -> None:
    app.wait(app.submit(Request(prompt="a", steps=2, width=64, height=128, enable_hr=True, hr_scale=1.5)).id, 5)
    ended = client.get("/darkroom/page/queue").json()["ended"]
    assert ended[0]["summary"].startswith("64×128 → 96×192 · 2 steps")
