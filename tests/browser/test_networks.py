import json

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import show
from tests.fixtures.networks import write_network

pytestmark = pytest.mark.browser
PROMPT, NEGATIVE = "#txt2img_prompt textarea", "#txt2img_neg_prompt textarea"
PHONE = {"width": 390, "height": 844}
LORA = {"kind": "lora", "name": "a.b", "weight": 0, "activation": "word, other", "negative": "bad"}


@pytest.fixture(autouse=True)
def files(site):
    """A few networks of each kind."""
    lora, embeddings = site.app.folders.lora[0], site.app.folders.embeddings[0]
    (lora / "inks").mkdir(parents=True, exist_ok=True)
    embeddings.mkdir(exist_ok=True)
    for name in ("amber", "birch", "inks/cinder"):
        write_network(lora / f"{name}.safetensors")
        (lora / f"{name}.json").unlink(missing_ok=True)
    (lora / "amber.json").write_text(json.dumps({
        "activation text": "amber light", "preferred weight": 0.7, "negative text": "grey",
        "description": "<img src=x onerror=\"document.body.dataset.hacked = 1\"><b>Warm</b>"}))
    (embeddings / "bad_hands.pt").write_bytes(b"x")
    site.app.networks.rescan(wait=True)


def opened(page, kind="lora"):
    page.click(f'#txt2img_extra_tabs [data-kind="{kind}"]')
    cards = page.locator("#txt2img_extra_tabs .card-main")
    expect(cards.first).to_be_visible()
    return cards


def test_cards_stand_in_for_the_settings_and_are_searched(open_page) -> None:
    page = open_page()
    expect(page.locator("#txt2img_steps")).to_be_visible()
    cards = opened(page)
    expect(cards).to_have_count(3)
    expect(page.locator("#txt2img_steps")).to_be_hidden()
    page.fill("#txt2img_extra_search", "inde")
    expect(cards).to_have_count(1)
    page.fill("#txt2img_extra_search", "nothing of this name")
    expect(page.locator("#txt2img_extra_tabs .networks-grid")).to_have_text("Nothing matches.")
    page.fill("#txt2img_extra_search", "")
    page.click('#txt2img_extra_tabs .chip:has-text("inks")')
    expect(cards).to_have_count(1)
    page.click('#txt2img_extra_tabs [data-kind=""]')
    expect(page.locator("#txt2img_steps")).to_be_visible()


def test_a_click_inserts_and_a_second_one_removes(open_page, site) -> None:
    page = open_page()
    page.fill(PROMPT, "a fox")
    card = opened(page).filter(has_text="amber")
    card.click()
    expect(page.locator(PROMPT)).to_have_value("a fox, <lora:amber:0.7> amber light")
    expect(page.locator(NEGATIVE)).to_have_value("grey")
    expect(card).to_have_attribute("aria-pressed", "true")
    page.wait_for_function("() => fetch('darkroom/page/session').then(() => true)")
    show(page, site.url)
    expect(page.locator(PROMPT)).to_have_value("a fox, <lora:amber:0.7> amber light")
    card = opened(page).filter(has_text="amber")
    expect(card).to_have_attribute("aria-pressed", "true")
    card.click()
    expect(page.locator(PROMPT)).to_have_value("a fox")
    expect(page.locator(NEGATIVE)).to_have_value("")
    expect(card).to_have_attribute("aria-pressed", "false")


def test_an_embedding_goes_into_the_prompt_that_was_written_in_last(open_page) -> None:
    page = open_page()
    page.fill(NEGATIVE, "blurry")
    card = opened(page, "embedding").filter(has_text="bad_hands")
    card.click()
    expect(page.locator(NEGATIVE)).to_have_value("blurry, bad_hands")
    card.click()
    expect(page.locator(NEGATIVE)).to_have_value("blurry")
    page.focus(PROMPT)
    card.click()
    expect(page.locator(PROMPT)).to_have_value("bad_hands")


def test_what_is_edited_is_in_the_sidecar_and_there_after_a_reload(open_page, site) -> None:
    page = open_page()
    opened(page)
    page.locator(".card", has_text="birch").hover()
    page.click('[aria-label="Edit birch"], .card:has-text("birch") .card-edit')
    page.fill('.network-dialog [name="activation"]', "white bark")
    page.fill('.network-dialog [name="weight"]', "0.4")
    page.fill('.network-dialog [name="description"]', "Trees <script>")
    page.click('.network-dialog [data-do="save"]')
    expect(page.locator(".network-dialog")).to_have_count(0)
    expect(page.locator(".card", has_text="birch").locator(".card-text")).to_have_text("Trees <script>")
    written = json.loads((site.app.folders.lora[0] / "birch.json").read_text())
    assert written == {"description": "Trees <script>", "activation text": "white bark", "preferred weight": 0.4}
    show(page, site.url)
    opened(page).filter(has_text="birch").click()
    expect(page.locator(PROMPT)).to_have_value("<lora:birch:0.4> white bark")


def test_a_description_is_text_and_nothing_else(open_page) -> None:
    page = open_page()
    opened(page)
    expect(page.locator(".card", has_text="amber").locator(".card-text")).to_contain_text("<b>Warm</b>")
    page.locator(".card", has_text="amber").hover()
    page.locator(".card", has_text="amber").locator(".card-edit").click()
    expect(page.locator(".network-dialog")).to_be_visible()
    assert page.evaluate("document.body.dataset.hacked") is None
    page.keyboard.press("Escape")
    expect(page.locator(".network-dialog")).to_have_count(0)


def test_a_checkpoint_is_chosen_by_its_card(open_page, site) -> None:
    page = open_page()
    cards = opened(page, "checkpoint")
    with page.expect_response(lambda response: response.url.endswith("/choose")):
        cards.first.click()
    expect(page.locator("#setting_sd_model_checkpoint input")).to_have_value("stand-in.safetensors")
    expect(cards.first).to_have_attribute("aria-pressed", "true")
    assert site.app.settings.get().sd_model_checkpoint == "stand-in.safetensors"


def test_cards_are_reached_and_used_by_keys(open_page) -> None:
    page = open_page()
    cards = opened(page)
    cards.first.focus()
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator(PROMPT)).to_have_value("<lora:amber:0.7> amber light")


def test_it_fits_a_phone_and_is_as_it_was_after_another_tab(open_page) -> None:
    page = open_page(viewport=PHONE)
    opened(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.fill("#txt2img_extra_search", "amber")
    expect(page.locator("#txt2img_extra_tabs .card")).to_have_count(1)
    page.get_by_role("tab", name="img2img").click()
    expect(page.locator("#img2img_extra_tabs [role=tab]").first).to_be_visible()
    page.get_by_role("tab", name="txt2img").click()
    expect(page.locator("#txt2img_extra_search")).to_have_value("amber")
    expect(page.locator("#txt2img_extra_tabs .card")).to_have_count(1)


CASES = [
    (LORA, ["", ""], "prompt", ["<lora:a.b:1> word, other", "bad"]),
    (LORA, ["x <lora:a.b:0.3:te=1> word, other, y", "z, bad"], "prompt", ["x, y", "z"]),
    (LORA, ["x <lora:A.B> y", "bad"], "prompt", ["x y", ""]),
    (LORA, ["<lora:aXb:1>", "bad"], "prompt", ["<lora:aXb:1>, <lora:a.b:1> word, other", "bad"]),
    ({**LORA, "activation": "", "weight": 0.5}, ["a cat,", ""], "prompt", ["a cat, <lora:a.b:0.5>", "bad"]),
    ({**LORA, "kind": "hypernetwork", "activation": "", "negative": ""}, ["", ""], "prompt", ["<hypernet:a.b:1>", ""]),
    ({**LORA, "kind": "embedding", "name": "bad-1"}, ["x", "y, (bad-1:1.2), z"], "negative", ["x", "y, z"]),
    ({**LORA, "kind": "embedding", "name": "bad"}, ["badly", "ünbad"], "negative", ["badly", "ünbad, bad"]),
    ({**LORA, "kind": "embedding", "name": "a$(b"}, ["A$(B, x", ""], "prompt", ["x", ""]),
]


def test_prompts_take_a_network_in_and_give_it_back(open_page) -> None:
    page = open_page()
    asset = page.locator('script[src*="page.js"]').get_attribute("src").replace("page.js", "networks-prompt.js")
    found = page.evaluate("""async ([asset, cases]) => {
        const { toggled } = await import(new URL(asset, location.href));
        return cases.map(([network, [prompt, negative], into]) => {
            const after = toggled(network, { prompt, negative }, into, 1);
            return [after.prompt, after.negative];
        });
    }""", [asset, [case[:3] for case in CASES]])
    for case, prompts in zip(CASES, found, strict=True):
        assert prompts == case[3], case
