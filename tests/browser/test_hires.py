import pytest
from playwright.sync_api import Page, expect

from modules.app.app import create
from modules.core.request import Request
from modules.launcher.flags import Flags
from modules.library.inputs import Inputs
from tests.browser.conftest import show
from tests.web.running import serving

pytestmark = pytest.mark.browser
PROMPT, GATE = "#txt2img_prompt textarea", "#txt2img_hr-checkbox input"
PICTURE, INFOTEXT = "darkroom-results img.picture", "#html_info_txt2img"


def number(name: str) -> str:
    return f"#txt2img_{name} input[type=number]"


def choose(page: Page, elem_id: str, option: str) -> None:
    field = page.locator(f"#{elem_id} input")
    field.click()
    # The list of another field may be on its way out.
    own = page.locator(f"#{field.get_attribute('aria-controls')}")
    own.get_by_role("option", name=option, exact=True).click()


def test_hires_fix_opens_says_its_sizes_and_is_there_after_a_reload(open_page, site) -> None:
    page = open_page()
    expect(page.locator("#txt2img_hr_upscaler")).to_be_hidden()
    page.check(GATE)
    sizes = page.locator("#txt2img_hr_finalres")
    expect(sizes).to_have_text("from 512x512 to 1024x1024")
    page.fill(number("hr_scale"), "1.5")
    expect(sizes).to_have_text("from 512x512 to 768x768")
    page.fill(number("width"), "256")
    page.fill(number("hr_resize_x"), "640")
    expect(sizes).to_have_text("from 256x512 to 640x1280")
    choose(page, "txt2img_hr_upscaler", "Lanczos")
    choose(page, "hr_sampler", "Euler a")
    choose(page, "hr_checkpoint", "stand-in.safetensors")
    page.fill("#hires_prompt textarea", "more of it")
    page.fill(number("hr_resize_x"), "0")
    page.fill(number("steps"), "1")
    page.click("#txt2img_generate")
    expect(page.locator(PICTURE)).to_have_attribute("width", "384")
    request = site.app.jobs(limit=1)[0].request
    assert (request.enable_hr, request.hr_scale, request.hr_upscaler, request.hr_sampler, request.hr_schedule,
            request.hr_checkpoint, request.hr_prompt) == (
        True, 1.5, "Lanczos", "Euler a", "", "stand-in.safetensors", "more of it")
    show(page, site.url)
    expect(page.locator(GATE)).to_be_checked()
    expect(page.locator(number("hr_scale"))).to_have_value("1.5")
    expect(page.locator("#txt2img_hr_upscaler input")).to_have_value("Lanczos")
    expect(page.locator("#hr_sampler input")).to_have_value("Euler a")
    expect(page.locator("#hr_scheduler input")).to_have_value("Use same scheduler")
    expect(page.locator("#hires_prompt textarea")).to_have_value("more of it")
    expect(sizes).to_have_text("from 256x512 to 384x768")
    choose(page, "hr_sampler", "Use same sampler")
    page.click("#txt2img_generate")
    page.wait_for_timeout(300)
    assert site.app.jobs(limit=1)[0].request.hr_sampler == ""


def test_the_refiner_counts_only_while_its_panel_is_open(open_page, site) -> None:
    page = open_page()
    page.fill(number("steps"), "1")
    page.check("#txt2img_enable-checkbox input")
    choose(page, "txt2img_checkpoint", "stand-in.safetensors")
    page.fill(number("switch_at"), "0.5")
    page.check("#txt2img_tiling input")
    for opened, expected in ((True, "stand-in.safetensors"), (False, "")):
        page.set_checked("#txt2img_enable-checkbox input", opened)
        page.click("#txt2img_generate")
        expect(page.locator("#txt2img_progress")).to_be_hidden()
        page.wait_for_timeout(300)
        request = site.app.jobs(limit=1)[0].request
        assert (request.refiner, request.refiner_switch_at, request.tiling) == (expected, 0.5, True)


def test_a_picture_is_made_again_with_hires_fix(open_page, site) -> None:
    site.app.wait(site.app.submit(Request(prompt="a badger", seed=11, steps=3, width=64, height=64)).id, 5)
    page = open_page()
    page.fill(PROMPT, "something else")
    page.fill(number("batch_count"), "4")
    page.fill(number("hr_scale"), "3") if page.is_visible(number("hr_scale")) else None
    page.click("#txt2img_upscale")
    expect(page.locator(PICTURE)).to_have_attribute("width", "128")
    expect(page.locator(INFOTEXT)).to_contain_text("a badger")
    request = site.app.jobs(limit=1)[0].request
    assert (request.prompt, request.seed, request.steps, request.batch_count, request.enable_hr) == (
        "a badger", 11, 3, 1, True)
    # The picture that is shown takes the place of the first pass.
    assert Inputs(site.app.folders.inputs).get(request.firstpass_image).width == 64
    expect(page.locator(PROMPT)).to_have_value("something else")


def test_styles_are_made_applied_changed_and_removed(open_page, site) -> None:
    page = open_page()
    page.fill(PROMPT, "a cat")
    page.click("#txt2img_styles_edit_button")
    dialog = page.locator("#txt2img_styles_dialog")
    expect(dialog.locator("#txt2img_edit_style_save")).to_be_disabled()
    page.fill("#txt2img_edit_style_select", "Ink")
    page.fill("#txt2img_edit_style_prompt", "{prompt}, ink")
    page.fill("#txt2img_edit_style_neg_prompt", "colour")
    page.click("#txt2img_edit_style_save")
    expect(page.locator(".toast.note")).to_contain_text("Saved: Ink.")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    choose(page, "txt2img_styles", "Ink")
    page.keyboard.press("Escape")
    page.click("#txt2img_style_apply")
    expect(page.locator(PROMPT)).to_have_value("a cat, ink")
    expect(page.locator("#txt2img_neg_prompt textarea")).to_have_value("colour")
    page.click("#txt2img_styles_edit_button")
    page.fill("#txt2img_edit_style_select", "Ink")
    expect(page.locator("#txt2img_edit_style_prompt")).to_have_value("{prompt}, ink")
    page.click("#txt2img_edit_style_delete")
    expect(page.locator(".toast.note").last).to_contain_text("Deleted: Ink.")
    assert site.app.styles.all() == {}


def test_the_starter_model_makes_a_picture_with_hires_fix(open_page, tmp_path) -> None:
    flags = Flags(data_dir=str(tmp_path))
    with serving(create(flags), flags) as real:
        page = open_page(url=real.url)
        page.fill(PROMPT, "a red house")
        page.fill(number("steps"), "2")
        page.fill(number("width"), "64")
        page.fill(number("height"), "64")
        page.fill("#txt2img_seed textarea, #txt2img_seed input", "7")
        page.check(GATE)
        page.fill(number("hires_steps"), "1")
        page.click("#txt2img_generate")
        expect(page.locator(PICTURE)).to_have_attribute("width", "128", timeout=60_000)
        expect(page.locator(INFOTEXT)).to_contain_text("Hires upscale: 2, Hires steps: 1, Hires upscaler: Latent")
        show(page, real.url)
        expect(page.locator(GATE)).to_be_checked()
        expect(page.locator(number("hires_steps"))).to_have_value("1")
        expect(page.locator(number("width"))).to_have_value("64")
        expect(page.locator(PROMPT)).to_have_value("a red house")
        expect(page.locator(PICTURE)).to_have_attribute("width", "128")
