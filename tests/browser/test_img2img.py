import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect

from modules.core.job import Job
from modules.core.request import Request
from modules.library.inputs import Inputs
from tests.browser.conftest import show

pytestmark = pytest.mark.browser
PROMPT, PICTURE = "#img2img_prompt textarea", "#img2img_results_panel img.picture"
EDITORS = {"img2img": "img2img_image", "Sketch": "img2img_sketch", "Inpaint": "img2maskimg",
           "Inpaint sketch": "inpaint_sketch", "Inpaint upload": "img_inpaint_base"}


def number(name: str) -> str:
    return f"#img2img_{name} input[type=number]"


def png(size=(96, 64), colour="red") -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


def opened(page: Page, mode: str = "img2img", picture: dict | None = None) -> Page:
    """Open the tab in a mode, with a picture."""
    page.get_by_role("tab", name="img2img").click()
    page.wait_for_timeout(500)
    page.locator("#mode_img2img label", has_text=mode).get_by_text(mode, exact=True).click()
    editor = page.locator(f"#{EDITORS[mode]} darkroom-editor").first
    expect(editor).to_be_visible()
    editor.locator("input[type=file]").set_input_files(picture or png())
    expect(editor.locator(".editor-size")).to_contain_text("×")
    page.fill(number("steps"), "1")
    return page


def painted(page: Page, mode: str) -> None:
    box = page.locator(f"#{EDITORS[mode]} .editor-stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()


def generated(page: Page, site) -> Request:
    return made(page, site).request


def made(page: Page, site) -> Job:
    """Generate and return the job once it has ended and is shown."""
    before = {job.id for job in site.app.jobs()}
    page.click("#img2img_generate")
    for _ in range(100):
        new = [job for job in site.app.jobs() if job.id not in before]
        if new and new[0].state == "finished":
            break
        page.wait_for_timeout(50)
    (job,) = new
    expect(page.locator(f'{PICTURE}[src*="{job.id}"]')).to_be_visible()
    return job


def test_a_picture_becomes_another_and_both_are_there_after_a_reload(open_page, site) -> None:
    page = opened(open_page())
    page.fill(PROMPT, "a fox")
    page.fill(number("denoising_strength"), "0.4")
    page.locator("#resize_mode label", has_text="Resize and fill").click()
    page.click("#img2img_detect_image_size_btn")
    expect(page.locator(number("width"))).to_have_value("96")
    request = generated(page, site)
    assert (request.kind, request.denoising_strength, request.resize_mode, request.width, request.height,
            request.mask) == ("img2img", 0.4, 2, 96, 64, "")
    with Inputs(site.app.folders.inputs).open(request.init_images[0]) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((96, 64), (255, 0, 0))
    show(page, site.url)
    page.get_by_role("tab", name="img2img").click()
    expect(page.locator(PROMPT)).to_have_value("a fox")
    expect(page.locator("#img2img_image .editor-size")).to_contain_text("96×64")
    expect(page.locator(PICTURE)).to_be_visible()
    page.get_by_role("tab", name="txt2img").click()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("")


def test_a_painted_mask_is_used_and_survives_a_reload(open_page, site) -> None:
    page = opened(open_page(), "Inpaint")
    expect(page.locator("#img2img_image")).to_be_hidden()
    page.click("#img2img_generate")
    expect(page.locator("#img2img_results_panel .failure")).to_contain_text("There is no mask")
    painted(page, "Inpaint")
    page.locator("#img2img_inpaint_full_res label", has_text="Only masked").click()
    page.fill(number("mask_blur"), "2")
    request = generated(page, site)
    assert (request.inpaint_full_res, request.mask_blur_x, request.mask_blur_y, request.inpainting_fill) == (
        True, 2, 2, 1)
    with Inputs(site.app.folders.inputs).open(request.mask) as mask:
        assert mask.size == (96, 64) and mask.convert("L").getpixel((48, 32)) == 255
        assert mask.convert("L").getpixel((1, 1)) == 0
    show(page, site.url)
    page.get_by_role("tab", name="img2img").click()
    expect(page.locator("#img2maskimg .editor-size")).to_contain_text("96×64")
    expect(page.locator("#inpaint_controls")).to_be_visible()
    assert generated(page, site).mask == request.mask


def pixels(screenshot: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(screenshot)).convert("RGB"), dtype=np.int16)


def test_a_mask_survives_a_failure_and_another_tab(open_page, site) -> None:
    page = opened(open_page(), "Inpaint")
    painted(page, "Inpaint")
    page.fill(PROMPT, "impossible")
    page.click("#img2img_generate")
    expect(page.locator("#img2img_results_panel .failure")).to_contain_text("3 GiB are needed")
    stage = page.locator("#img2maskimg .editor-stage")
    page.mouse.move(0, 0)
    seen, key = stage.screenshot(), site.app.forms.load("", "img2img")["mask"]
    page.get_by_role("tab", name="txt2img").click()
    page.get_by_role("tab", name="img2img").click()
    expect(page.locator("#img2maskimg .editor-size")).to_contain_text("96×64")
    page.wait_for_timeout(500)
    page.mouse.move(0, 0)
    # A border may be drawn a shade otherwise.
    assert np.abs(pixels(stage.screenshot()) - pixels(seen)).max() <= 2
    page.fill(PROMPT, "possible")
    assert generated(page, site).mask == key


@pytest.mark.parametrize("mode", ["Sketch", "Inpaint sketch"])
def test_paint_becomes_part_of_the_picture(open_page, site, mode) -> None:
    page = opened(open_page(), mode)
    painted(page, mode)
    request = generated(page, site)
    inputs = Inputs(site.app.folders.inputs)
    with inputs.open(request.init_images[0]) as picture:
        assert picture.getpixel((48, 32)) == (0xdd, 0x4f, 0x33) and picture.getpixel((1, 1)) == (255, 0, 0)
    if mode == "Sketch":
        assert request.mask == ""
    else:
        with inputs.open(request.mask) as mask:
            assert (mask.getpixel((48, 32)), mask.getpixel((1, 1))) == (255, 0)


def test_a_mask_is_uploaded_beside_the_picture(open_page, site) -> None:
    page = opened(open_page(), "Inpaint upload")
    mask = page.locator("#img_inpaint_base darkroom-editor").nth(1)
    mask.locator("input[type=file]").set_input_files(png(colour="white"))
    expect(mask.locator(".editor-size")).to_contain_text("96×64")
    request = generated(page, site)
    with Inputs(site.app.folders.inputs).open(request.mask) as stored:
        assert stored.convert("L").getextrema() == (255, 255)


def test_a_batch_makes_a_picture_from_each_file_and_names_the_broken(open_page, site) -> None:
    page = open_page()
    page.get_by_role("tab", name="img2img").click()
    page.wait_for_timeout(500)
    page.locator("#mode_img2img label", has_text="Batch").click()
    files = [png() | {"name": "one.png"}, {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"},
             png((64, 96), "blue") | {"name": "two.png"}]
    page.set_input_files("darkroom-batch input[type=file]", files)
    expect(page.locator(".batch-names li")).to_have_text(["one.png", "two.png"])
    expect(page.locator(".toast")).to_contain_text("broken.png was skipped")
    page.fill(number("steps"), "1")
    job = made(page, site)
    expect(page.locator("#img2img_results_panel .strip button")).to_have_count(2)
    assert len(job.images) == 2
    page.locator('darkroom-batch [data-do="clear"]').click()
    expect(page.locator(".batch-names li")).to_have_count(0)
    page.click("#img2img_generate")
    expect(page.locator("#img2img_results_panel .failure")).to_contain_text("no picture in the batch")


def test_a_batch_of_a_folder_takes_masks_and_prompts_and_saves_where_it_is_told(open_page, site, tmp_path) -> None:
    folders = {name: tmp_path / name for name in ("in", "masks")}
    for folder in folders.values():
        folder.mkdir()
    for name, colour in (("one", "red"), ("two", "blue")):
        carried = PngInfo()
        carried.add_text("parameters", f"{name} wren\nSteps: 9, Sampler: Euler, CFG scale: 3, Seed: 5")
        Image.new("RGB", (96, 64), colour).save(folders["in"] / f"{name}.png", pnginfo=carried)
        Image.new("L", (96, 64), 255).save(folders["masks"] / f"{name}.png")
    (folders["in"] / "broken.png").write_bytes(b"no picture")
    page = open_page()
    page.get_by_role("tab", name="img2img").click()
    page.wait_for_timeout(500)
    page.locator("#mode_img2img label", has_text="Batch").click()
    page.fill("#img2img_batch_input_dir textarea, #img2img_batch_input_dir input", str(folders["in"]))
    page.fill("#img2img_batch_inpaint_mask_dir textarea, #img2img_batch_inpaint_mask_dir input", str(folders["masks"]))
    page.fill("#img2img_batch_output_dir textarea, #img2img_batch_output_dir input", "wrens")
    page.click("#img2img_batch_png_info_props input")
    page.get_by_role("option", name="Prompt", exact=True).click()
    page.keyboard.press("Escape")
    page.fill(number("steps"), "1")
    job = made(page, site)
    expect(page.locator("#img2img_results_panel .warnings")).to_contain_text("broken.png was skipped")
    parts = [command.request for command in site.engine.commands if hasattr(command, "request")][-2:]
    assert len(job.images) == 2 and [part.prompt for part in parts] == ["one wren", "two wren"]
    assert [part.steps for part in parts] == [1, 1] and all(part.mask for part in parts)
    assert [(part.settings.directories_filename_pattern, part.settings.samples_filename_pattern) for part in parts] == [
        ("wrens", "one-[number]"), ("wrens", "two-[number]")]


def test_outpainting_and_the_scale_are_asked_for(open_page, site) -> None:
    page = opened(open_page())
    page.locator("#img2img_size_by label", has_text="Resize by").click()
    expect(page.locator("#img2img_width")).to_be_hidden()
    expect(page.locator("darkroom-scaled")).to_have_text("From 96×64 to 96×64")
    page.fill(number("scale"), "2")
    expect(page.locator("darkroom-scaled")).to_have_text("From 96×64 to 192×128")
    page.check("#img2img_outpaint-checkbox input")
    page.fill(number("outpaint_left"), "64")
    request = generated(page, site)
    assert (request.width, request.height, request.outpaint_left) == (192, 128, 64)


def test_results_are_sent_on_with_picture_size_and_prompt(open_page, site) -> None:
    site.app.wait(site.app.submit(Request(prompt="a heron", seed=9, steps=2, width=128, height=64)).id, 5)
    page = open_page()
    page.locator('#image_buttons_txt2img [data-send="inpaint"]').click()
    expect(page.locator("#img2maskimg .editor-size")).to_contain_text("128×64")
    expect(page.locator(PROMPT)).to_have_value("a heron")
    expect(page.locator(number("width"))).to_have_value("128")
    expect(page.locator(number("denoising_strength"))).to_have_value("0.75")
    page.get_by_role("tab", name="Gallery").click()
    page.fill("#gallery_search", "heron")
    expect(page.locator(".cell")).to_have_count(1)
    page.locator(".cell").click()
    page.locator('.detail [data-send="img2img"]').click()
    expect(page.locator("#img2img_image .editor-size")).to_contain_text("128×64")


def test_a_photo_from_png_info_changes_no_prompt(open_page, site) -> None:
    page = opened(open_page())
    page.fill(PROMPT, "a lynx")
    page.wait_for_timeout(400)
    page.get_by_role("tab", name="PNG Info").click()
    page.set_input_files("#pnginfo_image input", png((128, 72)))
    page.click("#pnginfo_send_to_inpaint")
    expect(page.locator("#img2maskimg .editor-size")).to_contain_text("128×72")
    expect(page.locator(number("height"))).to_have_value("72")
    expect(page.locator(PROMPT)).to_have_value("a lynx")


def test_the_tab_fits_on_a_phone(open_page, site) -> None:
    page = open_page({"width": 390, "height": 844}, has_touch=True)
    opened(page, "Inpaint")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#img2img_generate").bounding_box()
    assert box["y"] + box["height"] <= 844 and box["height"] >= 44
