import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import show

PROMPT, GATE, SCRIPT = "#txt2img_prompt textarea", "#txt2img_xyz_plot-checkbox input", "#script_txt2img_xyz_plot_"
PICTURE, LINE = "darkroom-results img.picture", "#txt2img_xyz_plot_summary"


def field(axis: str) -> str:
    return f"{SCRIPT}{axis}_values textarea, {SCRIPT}{axis}_values input"


def choose(page: Page, name: str, *options: str) -> None:
    control = page.locator(f"{SCRIPT}{name} input")
    control.scroll_into_view_if_needed()
    for option in options:
        control.click()
        listed = page.locator(f"#{control.get_attribute('aria-controls')}")
        listed.get_by_role("option", name=option, exact=True).click()
    control.press("Escape")


@pytest.fixture
def plotted(open_page, site) -> Page:
    page = open_page({"width": 1440, "height": 1500})
    page.fill(PROMPT, "an otter that is plotted")
    for name, value in (("width", "64"), ("height", "64"), ("steps", "2")):
        page.fill(f"#txt2img_{name} input[type=number]", value)
    expect(page.locator(field("x"))).to_be_hidden()
    page.check(GATE)
    expect(page.locator(LINE)).to_have_text("Choose what varies.")
    choose(page, "x_type", "CFG Scale")
    page.fill(field("x"), "5, 7, 9")
    choose(page, "y_type", "Sampler")
    choose(page, "y_values_dropdown", "Euler", "Euler a")
    expect(page.locator(LINE)).to_have_text("Will make 6 pictures for a grid of 3 x 2, 12 steps in all.")
    return page


def test_a_plot_is_made_shown_and_there_after_a_reload(plotted, site) -> None:
    page = plotted
    page.click("#txt2img_generate")
    expect(page.locator("#html_info_txt2img")).to_contain_text("Script: X/Y/Z plot")
    job = site.app.wait(site.app.jobs(limit=1)[0].id, 10)
    grid = next(image for image in job.images if image.kind == "grid")
    expect(page.locator(PICTURE)).to_have_attribute("width", str(grid.width))
    expect(page.locator("#txt2img_gallery .strip")).to_be_hidden()  # the cells are not shown beside it
    assert (job.request.grid.x_values, job.request.grid.y_values) == ("5, 7, 9", "Euler, Euler a")
    assert len(job.images) == 7
    show(page, site.url)
    expect(page.locator(GATE)).to_be_checked()
    expect(page.locator(f"{SCRIPT}x_type input")).to_have_value("CFG Scale")
    expect(page.locator(field("x"))).to_have_value("5, 7, 9")
    expect(page.locator(f"{SCRIPT}y_values_dropdown")).to_contain_text("Euler a")
    expect(page.locator(PICTURE)).to_have_attribute("width", str(grid.width))


def test_axes_are_swapped_filled_and_written_as_text(plotted) -> None:
    page = plotted
    expect(page.locator("#txt2img_plot_fill_x")).to_be_hidden()
    page.click("#txt2img_plot_swap_xy")
    expect(page.locator(f"{SCRIPT}y_type input")).to_have_value("CFG Scale")
    expect(page.locator(field("y"))).to_have_value("5, 7, 9")
    expect(page.locator(f"{SCRIPT}x_values_dropdown")).to_contain_text("Euler a")
    expect(page.locator(LINE)).to_have_text("Will make 6 pictures for a grid of 2 x 3, 12 steps in all.")
    page.check(f"{SCRIPT}csv_mode input")
    expect(page.locator(field("x"))).to_have_value("Euler, Euler a")
    page.fill(field("y"), "5, x")
    expect(page.locator(LINE)).to_have_text("X/Y/Z plot: CFG Scale: 'x' is no number and no range.")
    page.uncheck(f"{SCRIPT}csv_mode input")
    page.click("#txt2img_plot_fill_x")
    expect(page.locator(f"{SCRIPT}x_values_dropdown")).to_contain_text("UniPC")
