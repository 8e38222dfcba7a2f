from dataclasses import replace

import pytest
from playwright.sync_api import expect

from modules.core.request import Request
from modules.launcher.flags import Flags
from tests.browser.conftest import show
from tests.web.running import fake_engine, make_app, serving

pytestmark = pytest.mark.browser
SMALL = Request(prompt="first", steps=1, width=64, height=64)


def test_the_queue_is_reordered_cancelled_and_paused(open_page, site) -> None:
    site.engine.hold.clear()
    site.app.submit(SMALL)
    for name in ("second", "third", "fourth"):
        site.app.submit(Request(prompt=name, steps=1, width=64, height=64))
    page = open_page()
    page.get_by_role("tab", name="Queue").click()
    queued = page.locator('[data-list="queued"] .job-prompt')
    expect(queued).to_have_text(["second", "third", "fourth"])
    page.locator('[data-list="queued"] .job').nth(2).get_by_label("Move up").click()
    expect(queued).to_have_text(["second", "fourth", "third"])
    page.locator('[data-list="queued"] .job').nth(0).get_by_label("Cancel").click()
    expect(queued).to_have_text(["fourth", "third"])
    page.click("#queue_pause")
    expect(page.locator(".paused-note")).to_be_visible()
    assert site.app.paused
    site.engine.hold.set()
    expect(page.locator('[data-list="running"] .job')).to_have_count(0)
    expect(queued).to_have_count(2)
    page.click("#queue_pause")
    expect(queued).to_have_count(0)


def test_generate_adds_to_the_queue_while_a_job_runs(open_page, site) -> None:
    site.engine.hold.clear()
    page = open_page()
    page.fill("#txt2img_steps input[type=number]", "1")
    for _ in range(3):
        page.press("#txt2img_prompt textarea", "Control+Enter")
    expect(page.locator("#txt2img_progress .state")).to_contain_text("2 more in the queue")
    site.engine.hold.set()
    expect(page.locator("darkroom-results img.picture")).to_be_visible()
    expect(page.locator("#txt2img_progress")).to_be_hidden()


def test_settings_are_saved_found_and_refused(open_page, site) -> None:
    page = open_page()
    page.get_by_role("tab", name="Settings").click()
    quality = page.locator("#setting_jpeg_quality input[type=number]")
    quality.fill("55")
    page.click("#settings_submit")
    expect(page.locator(".toast.note")).to_contain_text("Quality for saved jpeg")
    assert site.app.settings.get().jpeg_quality == 55
    show(page, site.url)
    page.get_by_role("tab", name="Settings").click()
    expect(quality).to_have_value("55")
    page.fill("#settings_search", "clip skip")
    expect(page.locator("#setting_CLIP_stop_at_last_layers")).to_be_visible()
    expect(quality).to_be_hidden()


def test_the_gallery_finds_a_picture_and_sends_it_to_txt2img(open_page, site) -> None:
    site.app.wait(site.app.submit(Request(prompt="an iguana", steps=3, width=64, height=64)).id, 5)
    page = open_page()
    page.get_by_role("tab", name="Gallery").click()
    page.fill("#gallery_search", "iguana")
    expect(page.locator(".cell")).to_have_count(1)
    page.locator(".cell").click()
    page.locator(".detail").get_by_role("button", name="Send to txt2img").click()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("an iguana")
    expect(page.locator("#txt2img_steps input[type=number]")).to_have_value("3")


def test_nothing_is_wider_than_a_phone(open_page, site) -> None:
    site.app.wait(site.app.submit(Request(prompt="many " * 40, steps=1, width=64, height=64, batch_count=8)).id, 5)
    page = open_page({"width": 390, "height": 844}, has_touch=True)
    box = page.locator("#txt2img_generate").bounding_box()
    assert box["y"] + box["height"] <= 844 and box["height"] >= 44
    for tab in ("txt2img", "img2img", "Extras", "PNG Info", "Queue", "Gallery", "Settings", "Extensions"):
        shown = page.get_by_role("tab", name=tab, exact=True)
        if not shown.is_visible():
            page.locator(".overflow-menu > button").click()
            shown = page.locator(".overflow-dropdown button", has_text=tab)
        shown.click()
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab


def test_without_a_model_the_page_says_what_to_do(open_page, tmp_path) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path), model=False)
    with serving(app) as empty:
        page = open_page(url=empty.url)
        expect(page.locator(".no-model")).to_contain_text(str(app.folders.checkpoints[0]))
        app.folders.checkpoints[0].mkdir(parents=True)
        (app.folders.checkpoints[0] / "new.safetensors").write_bytes(b"x")
        page.click("#refresh_sd_model_checkpoint")
        expect(page.locator(".no-model")).to_be_hidden()
        expect(page.locator("#setting_sd_model_checkpoint input")).to_have_value("new.safetensors")


def test_nothing_can_be_typed_before_the_stored_form_is_shown(browser, site) -> None:
    site.app.forms.save("", "txt2img", {"prompt": "kept", "steps": 7})
    page, held, open_gate = browser.new_page(), [], []
    page.route("**/gradio_api/run/**", lambda call: call.continue_() if open_gate else held.append(call))
    page.goto(site.url)
    page.wait_for_selector("#txt2img_prompt textarea", state="attached")
    while len(held) < 2:
        page.wait_for_timeout(20)
    for control in ("#txt2img_prompt textarea", "#txt2img_generate"):
        expect(page.locator(control)).to_be_hidden()
    open_gate.append(True)
    for call in held:
        call.continue_()
    expect(page.locator("#txt2img_generate")).to_be_visible()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("kept")
    page.close()
    assert site.app.forms.load("", "txt2img") == {"prompt": "kept", "steps": 7}


def test_accounts_have_forms_and_jobs_of_their_own(browser, tmp_path) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path))
    flags = replace(Flags(), accounts=(("ann", "one"), ("bob", "two")))
    with serving(app, flags) as site:
        for user, password in flags.accounts:
            page = browser.new_page()
            page.goto(site.url)
            page.fill("input[name=username]", user)
            page.fill("input[name=password]", password)
            page.click("button")
            prompt = page.locator("#txt2img_prompt textarea")
            prompt.fill(f"a picture for {user}")
            page.click("#txt2img_generate")
            expect(page.locator("#html_info_txt2img")).to_contain_text(f"a picture for {user}")
            page.close()
        assert [job.owner for job in app.jobs()] == ["bob", "ann"]
        assert app.forms.load("ann", "txt2img")["prompt"] == "a picture for ann"
