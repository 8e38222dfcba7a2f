"""The Extras tab: a picture goes in, is enlarged, and is compared with what it was."""

import io
import shutil

import pytest
from PIL import Image
from playwright.sync_api import expect

from modules.core.request import Request
from tests.browser.editing import encoded, picture

pytestmark = pytest.mark.browser


def chosen(page, upscaler="Lanczos"):
    """Choose an upscaler as a person does."""
    page.locator("#extras_upscaler_1 input").click()
    page.get_by_role("option", name=upscaler, exact=True).click()


def test_a_picture_is_enlarged_and_compared(open_page, site):
    page = open_page()
    page.get_by_role("tab", name="Extras").click()
    page.click("#extras_generate")
    expect(page.locator("#extras_results .failure")).to_contain_text("No upscaler is chosen")
    chosen(page)
    page.click("#extras_generate")
    expect(page.locator("#extras_results .failure")).to_contain_text("no picture")
    page.set_input_files("darkroom-source input", files=[
        {"name": "cat.png", "mimeType": "image/png", "buffer": encoded(picture((60, 40)))}])
    expect(page.locator("darkroom-source .count")).to_have_text("cat.png, 60×40")
    page.click("#extras_generate")
    result = page.locator("#extras_results .compare")
    expect(result.locator(".picture")).to_have_attribute("width", "240")
    expect(page.locator("#extras_results .infotext")).to_contain_text("Postprocess upscaler: Lanczos")
    result.locator("input").fill("20")
    assert "20%" in result.get_attribute("style")
    expect(result.locator(".before")).to_be_visible()
    page.reload()
    page.get_by_role("tab", name="Extras").click()
    expect(page.locator("#extras_upscaler_1 input")).to_have_value("Lanczos")
    expect(page.locator("darkroom-source .count")).to_have_text("cat.png, 60×40")


def test_faces_are_restored_once_the_files_are_there(open_page, site):
    page = open_page()
    page.get_by_role("tab", name="Extras").click()
    page.get_by_role("button", name="Restore faces").click()
    missing, slider = page.locator("#extras_faces_missing"), page.locator("#extras_gfpgan_visibility input").first
    expect(missing).to_contain_text("GFPGAN needs GFPGANv1.4.pth")
    expect(slider).to_be_disabled()
    place = site.app.folders.models_dir / "GFPGAN"
    place.mkdir(parents=True)
    try:
        for name in ("GFPGANv1.4.pth", "detection_Resnet50_Final.pth"):
            (place / name).write_bytes(b"x")
        page.get_by_role("tab", name="txt2img").click()
        page.get_by_role("tab", name="Extras").click()
        expect(slider).to_be_enabled()
        expect(missing).not_to_contain_text("GFPGAN needs")
        expect(missing).to_contain_text("CodeFormer needs codeformer-v0.1.0.pth")
        expect(page.locator("#extras_codeformer_visibility input").first).to_be_disabled()
    finally:
        shutil.rmtree(place)


def test_modes_and_sizes_show_what_belongs_to_them(open_page, site):
    page = open_page()
    page.get_by_role("tab", name="Extras").click()
    expect(page.locator("#extras_scale_to_tab")).to_be_hidden()
    page.locator("#extras_resize_mode").get_by_text("Scale to").click()
    expect(page.locator("#extras_upscaling_resize")).to_be_hidden()
    expect(page.locator("#extras_upscaling_crop")).to_be_visible()
    page.locator("#mode_extras").get_by_text("Batch Process").click()
    expect(page.locator("darkroom-source")).to_be_hidden()
    page.set_input_files("#extras_image_batch input", files=[
        {"name": f"{i}.png", "mimeType": "image/png", "buffer": encoded(picture((30 + i, 20)))} for i in range(3)])
    expect(page.locator("#extras_image_batch .count")).to_have_text("3 pictures")
    chosen(page, "Nearest")
    page.locator("#extras_resize_mode").get_by_text("Scale by").click()
    page.click("#extras_generate")
    expect(page.locator("#extras_results .strip button")).to_have_count(3)


def test_a_folder_goes_to_a_folder_without_being_shown(open_page, site, tmp_path):
    for i in range(2):
        picture((20 + i, 12)).save(tmp_path / f"curlew {i}.png")
    page = open_page()
    page.get_by_role("tab", name="Extras").click()
    page.locator("#mode_extras").get_by_text("Batch from Directory").click()
    page.locator("#extras_batch_input_dir").get_by_role("textbox").fill(str(tmp_path))
    page.locator("#extras_batch_output_dir").get_by_role("textbox").fill("curlews")
    page.locator("#extras_show_extras_results input").uncheck()
    chosen(page)
    page.click("#extras_generate")
    expect(page.locator("#extras_results .stage")).to_contain_text("2 pictures were saved")
    expect(page.locator("#extras_results .strip button")).to_have_count(0)
    # The engine of these tests has its own place for pictures.
    latest = next(job for job in site.app.jobs() if job.request.kind == "extras")
    assert (latest.request.folder, len(latest.images)) == ("curlews", 2)


def test_a_result_of_txt2img_is_sent_to_extras_with_its_infotext(open_page, site):
    job = site.app.wait(site.app.submit(Request(prompt="a bittern", steps=1, width=64, height=64)).id, 5)
    # The engine of these tests writes no infotext into its files.
    Image.open(io.BytesIO(encoded(picture((64, 64))))).save(job.images[0].path)
    page = open_page()
    page.locator("#image_buttons_txt2img").get_by_role("button", name="Send to extras").click()
    expect(page.locator("darkroom-source .count")).to_contain_text("64×64")
    assert site.app.forms.load("", "extras")["source"]["name"].endswith(".png")
    expect(page.locator("#image_buttons_extras").get_by_role("button", name="Reuse parameters")).to_have_count(0)


def test_an_upscaler_that_has_come_since_the_start_can_be_chosen_for_img2img(open_page, site):
    late = site.app.folders.esrgan[0] / "4x-Godwit.pth"
    late.parent.mkdir(parents=True, exist_ok=True)
    late.write_bytes(b"x")
    try:
        page = open_page()
        page.get_by_role("tab", name="Settings").click()
        page.wait_for_selector("body.restored-settings")
        page.locator("#setting_upscaler_for_img2img input").click()
        expect(page.get_by_role("option", name="4x-Godwit", exact=True)).to_be_visible()
    finally:
        late.unlink()
