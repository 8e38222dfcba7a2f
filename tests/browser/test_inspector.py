"""The Inspector on the page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.fixtures.networks import write_network
from tests.fixtures.tiny_models import write_tiny_sd1

PHONE = {"width": 390, "height": 844}


@pytest.fixture
def network(site):
    folder = site.app.folders.lora[0]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inspected.safetensors"
    write_network(path, metadata={"ss_tag_frequency": '{"a": {"<b>bold</b>": 3}}', "ss_steps": "12"})
    site.app.networks.rescan(wait=True)
    yield path
    path.unlink()
    site.app.networks.rescan(wait=True)


@pytest.fixture
def page(open_page):
    """The page with the Inspector open and its kinds listed."""
    opened = open_page()
    opened.get_by_role("tab", name="Inspector").click()
    expect(opened.locator("#inspector_kind option")).to_have_count(9)
    return opened


def choose(page, kind, name):
    page.select_option("#inspector_kind", kind)
    page.fill("#inspector_name", name)
    page.locator("#inspector_name").blur()


@pytest.mark.usefixtures("network")
def test_a_model_is_shown_checked_and_searched(page) -> None:
    choose(page, "lora", "inspected")
    found = page.locator(".inspector-found")
    expect(found.locator("h2")).to_have_text("LoRA for Stable Diffusion 1.x")
    expect(page.locator("#inspector_name")).to_have_value("inspected.safetensors")
    expect(found.locator(".inspector-tags")).to_contain_text("<b>bold</b> 3")
    expect(found.locator('[data-part="tensors"] tr')).to_have_count(2)
    found.locator('[data-part="search"]').fill("up")
    expect(found.locator('[data-part="tensors"] tr')).to_have_count(1)
    found.locator('[data-do="values"]').click()
    expect(found.locator('[data-part="checked"]')).to_contain_text("Damaged")
    page.get_by_role("tab", name="Gallery").click()
    page.get_by_role("tab", name="Inspector").click()
    expect(found.locator("h2")).to_have_text("LoRA for Stable Diffusion 1.x")


@pytest.mark.usefixtures("network")
def test_a_card_of_the_networks_browser_leads_to_it_on_a_phone(open_page) -> None:
    page = open_page(PHONE, has_touch=True)
    page.click('#txt2img_extra_tabs [data-kind="lora"]')
    page.locator("#txt2img_extra_tabs .card", has_text="inspected").locator(".card-edit").click()
    page.locator('.network-dialog [data-do="inspect"]').click()
    expect(page.locator(".inspector-found h2")).to_have_text("LoRA for Stable Diffusion 1.x")
    expect(page.locator('[data-part="tensors"] tr').first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.fixture
def pair(site) -> Iterator[None]:
    """Two checkpoints, gone afterwards."""
    folder = site.app.folders.checkpoints[0]
    models = [write_tiny_sd1(folder / f"compared-{letter}.safetensors") for letter in "ab"]
    yield
    for path in models:
        path.unlink()


@pytest.mark.usefixtures("pair")
def test_two_checkpoints_are_compared(page) -> None:
    choose(page, "checkpoint", "compared-a")
    compared = page.locator("darkroom-difference")
    page.fill("#difference_model", "compared-b")
    compared.locator('[data-do="compare"]').click()
    expect(compared.locator("img")).to_be_visible()
    assert compared.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 500
    compared.locator("summary").click()
    expect(compared.locator("tbody tr")).to_have_count(3)


def test_what_is_not_there_is_said(page) -> None:
    with page.expect_response(lambda answer: "names?" in answer.url):
        page.select_option("#inspector_kind", "vae")
    expect(page.locator("#inspector_name")).to_have_attribute("placeholder", "There are none")


@pytest.mark.usefixtures("network")
def test_another_kind_shows_nothing_of_the_model_before(page) -> None:
    choose(page, "lora", "inspected")
    expect(page.locator(".inspector-found h2")).to_be_visible()
    page.select_option("#inspector_kind", "vae")
    expect(page.locator(".inspector-found")).to_have_count(0)
    expect(page.locator('[data-part="found"]')).to_contain_text("Choose a model")
