import io
import re

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from tests.browser.conftest import show

pytestmark = pytest.mark.browser
PROMPT, NEGATIVE = "#txt2img_prompt textarea", "#txt2img_neg_prompt textarea"
STEPS, WIDTH, HEIGHT = (f"#txt2img_{name} input[type=number]" for name in ("steps", "width", "height"))
SEED = "#txt2img_seed textarea, #txt2img_seed input"
PICTURE, PROGRESS = "darkroom-results img.picture", "#txt2img_progress"
INFOTEXT = ("a fox in the snow\nNegative prompt: summer\nSteps: 33, Sampler: Euler a, Schedule type: Automatic, "
            "CFG scale: 4.5, Seed: 1234567890123456789, Size: 320x256, Clip skip: 2, RNG: CPU")


def test_a_prompt_becomes_a_picture_with_its_parameters(open_page, site) -> None:
    page = open_page()
    page.fill(PROMPT, "a lighthouse")
    page.fill(WIDTH, "256")
    page.fill(SEED, "42")
    page.click("#txt2img_generate")
    expect(page.locator(PICTURE)).to_be_visible()
    expect(page.locator("#html_info_txt2img")).to_contain_text("Seed: 42")
    job = site.app.jobs(limit=1)[0]
    assert (job.request.prompt, job.request.width, job.request.seed) == ("a lighthouse", 256, 42)
    expect(page.locator("#txt2img_running_actions")).to_have_css("visibility", "hidden")


def test_progress_and_preview_are_shown_and_a_reload_takes_them_up_again(open_page, site) -> None:
    site.engine.seconds_per_step = 0.2
    page = open_page()
    page.fill(PROMPT, "a slow lighthouse")
    page.fill(STEPS, "150")
    page.press(PROMPT, "Control+Enter")
    expect(page.locator(f"{PROGRESS} .state")).to_contain_text("step")
    expect(page.locator("darkroom-results img.live")).to_be_visible()
    expect(page).to_have_title(re.compile(r"\[\d+%\] Darkroom"))
    show(page, site.url)
    expect(page.locator(PROGRESS)).to_be_visible()
    expect(page.locator(PROMPT)).to_have_value("a slow lighthouse")
    expect(page.locator(STEPS)).to_have_value("150")
    page.press(PROMPT, "Escape")
    expect(page.locator(PROGRESS)).to_be_hidden()
    assert site.app.jobs(limit=1)[0].state == "interrupted"


def test_every_field_is_there_after_a_reload_and_in_another_window(open_page, site) -> None:
    page = open_page()
    page.fill(NEGATIVE, "fog")
    page.fill(HEIGHT, "768")
    page.check("#txt2img_subseed_show input")
    page.fill("#txt2img_subseed textarea, #txt2img_subseed input", "77")
    page.click("#txt2img_res_switch_btn")
    expect(page.locator(WIDTH)).to_have_value("768")
    page.click("#txt2img_scheduler input")
    page.get_by_role("option", name="Exponential", exact=True).click()
    page.wait_for_timeout(400)
    for other in (page, open_page()):
        show(other, site.url)
        expect(other.locator(NEGATIVE)).to_have_value("fog")
        expect(other.locator(WIDTH)).to_have_value("768")
        expect(other.locator(HEIGHT)).to_have_value("512")
        expect(other.locator("#txt2img_subseed textarea, #txt2img_subseed input")).to_have_value("77")
        expect(other.locator("#txt2img_scheduler input")).to_have_value("Exponential")


def test_a_pasted_prompt_is_still_there_after_another_tab(open_page, site) -> None:
    page = open_page()
    page.fill(PROMPT, "typed")
    page.eval_on_selector(PROMPT, "box => { box.focus(); box.select(); }")
    page.keyboard.insert_text("pasted")
    page.get_by_role("tab", name="Settings").click()
    page.get_by_role("tab", name="txt2img").click()
    expect(page.locator(PROMPT)).to_have_value("pasted")
    page.keyboard.press("Tab")
    page.wait_for_timeout(300)
    assert site.app.forms.load("", "txt2img")["prompt"] == "pasted"


def test_a_batch_can_be_looked_through_in_full_screen_and_its_seeds_used_again(open_page) -> None:
    page = open_page()
    page.fill("#txt2img_batch_count input[type=number]", "3")
    page.fill(STEPS, "1")
    page.fill(SEED, "100")
    page.click("#txt2img_generate")
    expect(page.locator(".strip button")).to_have_count(3)
    page.click(PICTURE)
    viewer = page.locator("#lightboxModal")
    expect(viewer.locator(".viewer-place")).to_contain_text("seed 100")
    page.keyboard.press("ArrowLeft")
    expect(viewer.locator(".viewer-place")).to_contain_text("3 / 3")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    page.click("#txt2img_reuse_seed")
    expect(page.locator(SEED)).to_have_value("102")
    page.click("#txt2img_random_seed")
    expect(page.locator(SEED)).to_have_value("-1")


def test_bad_input_and_a_failed_job_are_explained(open_page) -> None:
    page = open_page()
    page.fill(SEED, "soon")
    page.click("#txt2img_generate")
    expect(page.locator("darkroom-results .failure")).to_contain_text("Seed")
    page.fill(SEED, "1")
    page.fill(PROMPT, "something impossible")
    page.click("#txt2img_generate")
    expect(page.locator("darkroom-results .failure")).to_contain_text("2 GiB are free")
    expect(page.locator("darkroom-results .failure")).to_contain_text("Make it smaller.")


def test_a_number_may_be_typed_through_values_that_are_not_allowed(open_page) -> None:
    page = open_page()
    page.click(WIDTH)
    page.keyboard.press("Control+A")
    page.keyboard.type("128", delay=150)
    page.keyboard.press("Tab")
    expect(page.locator(WIDTH)).to_have_value("128")


def test_an_interrupted_job_says_so_and_leaves_the_last_pictures(open_page, site) -> None:
    page = open_page()
    page.fill(STEPS, "1")
    page.fill(PROMPT, "a first one")
    page.click("#txt2img_generate")
    expect(page.locator("#html_info_txt2img")).to_contain_text("a first one")
    site.engine.seconds_per_step = 0.2
    page.fill(STEPS, "150")
    page.click("#txt2img_generate")
    expect(page.locator(f"{PROGRESS} .state")).to_contain_text("step")
    page.click("#txt2img_interrupt")
    for _ in range(2):
        expect(page.locator(".warnings")).to_contain_text("Interrupted before a picture was finished.")
        expect(page.locator("#html_info_txt2img")).to_contain_text("a first one")
        show(page, site.url)


def test_generation_parameters_are_read_from_the_prompt(open_page) -> None:
    page = open_page()
    page.fill(PROMPT, INFOTEXT)
    page.click("#paste")
    expect(page.locator(PROMPT)).to_have_value("a fox in the snow")
    expect(page.locator(STEPS)).to_have_value("33")
    expect(page.locator(SEED)).to_have_value("1234567890123456789")
    expect(page.locator("#txt2img_override_settings")).to_contain_text("Clip skip: 2")
    page.click("#txt2img_clear_prompt")
    expect(page.locator(PROMPT)).to_have_value("")


def test_png_info_sends_a_pictures_parameters_to_txt2img(open_page) -> None:
    page = open_page()
    page.get_by_role("tab", name="PNG Info").click()
    carried, buffer = PngInfo(), io.BytesIO()
    carried.add_text("parameters", INFOTEXT)
    Image.new("RGB", (16, 16)).save(buffer, "PNG", pnginfo=carried)
    page.set_input_files("#pnginfo_image input", {"name": "a.png", "mimeType": "image/png",
                                                  "buffer": buffer.getvalue()})
    expect(page.locator("#pnginfo_html_info")).to_contain_text("Steps: 33")
    page.click("#pnginfo_send_to_txt2img")
    expect(page.locator(PROMPT)).to_have_value("a fox in the snow")
    expect(page.locator("#txt2img_sampling input")).to_have_value("Euler a")
    expect(page.locator(HEIGHT)).to_have_value("256")


KEYS = (
    ("a red cat", (2, 5), "Control+ArrowUp", "a (red:1.1) cat"),
    ("a (red:1.1) cat", (4, 4), "Control+ArrowUp", "a (red:1.2) cat"),
    ("a (red:1.1) cat", (3, 6), "Control+ArrowDown", "a red cat"),
    ("a red cat", (3, 3), "Control+ArrowDown", "a (red:0.9) cat"),
    ("a <lora:x:1> b", (4, 4), "Control+ArrowUp", "a <lora:x:1.05> b"),
    ("one, two, three", (6, 6), "Alt+ArrowRight", "one, three, two"),
)


def test_keys_change_weights_and_order_and_tokens_are_counted(open_page) -> None:
    page = open_page()
    for text, (start, end), key, result in KEYS:
        page.fill(PROMPT, text)
        page.eval_on_selector(PROMPT, f"box => {{ box.focus(); box.setSelectionRange({start}, {end}); }}")
        page.keyboard.press(key)
        expect(page.locator(PROMPT)).to_have_value(result)
    page.fill(PROMPT, "a cat")
    expect(page.locator("#txt2img_token_counter")).to_have_text("2/75")
