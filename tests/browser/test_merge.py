"""The Checkpoint Merger on the page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from modules.core.merge import Recipe
from tests.browser.test_hires import choose
from tests.fixtures.fake_engine import write_stand_in_checkpoint

pytestmark = pytest.mark.browser
STATE = "darkroom-merge .state"


@pytest.fixture
def models(site) -> Iterator[None]:
    """Three checkpoints that no other test finds."""
    folder = site.app.folders.checkpoints[0]
    written = [write_stand_in_checkpoint(folder, f"{name}.safetensors") for name in "abc"]
    yield
    for path in written:
        path.unlink()


@pytest.mark.usefixtures("models")
def test_a_merge_is_asked_for_followed_cancelled_and_shown(open_page, site) -> None:
    page = open_page()
    page.get_by_role("tab", name="Checkpoint Merger").click()
    expect(page.locator("#modelmerger_tertiary_model_name")).to_be_hidden()
    page.click("#modelmerger_merge")
    expect(page.locator(".toast")).to_contain_text("Model A is not chosen")
    choose(page, "modelmerger_primary_model_name", "a.safetensors")
    choose(page, "modelmerger_secondary_model_name", "b.safetensors")
    choose(page, "modelmerger_interp_method", "Triple sum")
    expect(page.locator("#modelmerger_interp_description")).to_contain_text("C * beta")
    choose(page, "modelmerger_tertiary_model_name", "c.safetensors")
    page.fill("#modelmerger_beta input[type=number]", "0.25")
    site.engine.hold.clear()
    page.click("#modelmerger_merge")
    expect(page.locator(STATE)).to_be_visible()
    with page.expect_response(lambda answer: answer.url.endswith("/cancel")):
        page.click("#modelmerger_cancel")
    site.engine.hold.set()
    expect(page.locator("darkroom-merge")).to_contain_text("nothing was written")
    page.fill("#modelmerger_custom_name textarea, #modelmerger_custom_name input", "mine")
    page.click("#modelmerger_merge")
    expect(page.locator("darkroom-merge h3")).to_have_text("mine.safetensors")
    (asked, *_) = site.app.jobs(states=("finished",))
    assert asked.request.values | {"alpha": 0.3, "beta": 0.25, "method": "triple_sum", "name": "mine"} == (
        asked.request.values)
    page.reload()
    page.get_by_role("tab", name="Checkpoint Merger").click()
    expect(page.locator("#modelmerger_beta input[type=number]")).to_have_value("0.25")
    assert Recipe(**asked.request.values).model_c == "c.safetensors"


@pytest.mark.usefixtures("models")
def test_a_merge_is_tried_out_as_one_picture_and_as_a_grid(open_page, site) -> None:
    page = open_page()
    page.get_by_role("tab", name="Checkpoint Merger").click()
    page.wait_for_selector("body.restored-modelmerger")
    choose(page, "modelmerger_primary_model_name", "a.safetensors")
    choose(page, "modelmerger_secondary_model_name", "b.safetensors")
    page.fill("#merge_preview_prompt textarea", "merged fox")
    page.click("#merge_preview_one")
    pictures = page.locator("darkroom-merge-preview .merge-pictures img")
    expect(pictures).to_have_count(1)
    (job,) = [one for one in site.app.jobs() if one.origin == "merge preview"]
    assert job.request.merge.model_b == "b.safetensors" and job.request.prompt == "merged fox"
    page.fill("#merge_preview_ratios input, #merge_preview_ratios textarea", "none")
    page.click("#merge_preview_grid")
    expect(page.locator(".toast")).to_contain_text("Merge multiplier")
    page.reload()
    page.get_by_role("tab", name="Checkpoint Merger").click()
    expect(pictures).to_have_count(1)
    expect(page.locator("#merge_preview_prompt textarea")).to_have_value("merged fox")
    expect(page.locator("#merge_preview_ratios input, #merge_preview_ratios textarea")).to_have_value("none")


@pytest.mark.usefixtures("models")
def test_loras_are_added_by_a_list_and_merged(open_page, site) -> None:
    folder = site.app.folders.lora[0]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "merged style.safetensors"
    file.write_bytes((site.app.folders.checkpoints[0] / "a.safetensors").read_bytes())
    try:
        page = open_page()
        page.get_by_role("tab", name="Checkpoint Merger").click()
        page.get_by_role("tab", name="LoRAs", exact=True).click()
        choose(page, "modelmerger_loras_add", "merged style")
        expect(page.locator("#modelmerger_loras_tags textarea")).to_have_value("<lora:merged style:1>")
        page.click("#modelmerger_loras_run")
        expect(page.locator("darkroom-merge h3")).to_have_text("merged style-merged.safetensors")
        (asked, *_) = site.app.jobs(states=("finished",))
        assert asked.request.kind == "merge_loras" and asked.request.values["loras"] == "<lora:merged style:1>"
        page.get_by_role("tab", name="Extract", exact=True).click()
        page.click("#modelmerger_extraction_run")
        expect(page.locator(".toast").last).to_contain_text("Model A is not chosen")
        page.set_viewport_size({"width": 390, "height": 700})
        bar = page.locator(".act-bar:visible").bounding_box()
        assert bar and bar["y"] + bar["height"] <= 701, "the button is at the window's edge"
    finally:
        file.unlink()
