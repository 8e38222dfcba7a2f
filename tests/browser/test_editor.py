"""The mask editor in a real browser: what is drawn, changed, undone and stored, pixel by pixel."""

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.editing import Editing, editing, encoded, picture

pytestmark = pytest.mark.browser
START, END = (60, 60), (340, 240)


@pytest.fixture
def open_editors(browser, site):
    """Return a function that shows editors of the given modes; errors in the console fail the test."""
    with editing(browser, site) as opened:
        yield opened
    site.app.forms.save("", "img2img", {})


@pytest.fixture
def editor(open_editors) -> Editing:
    opened = open_editors("inpaint")
    opened.give(picture())
    opened.set(size=40, softness=0, opacity=1, amount=8)
    return opened


def capsule(start: tuple[float, float], end: tuple[float, float], radius: float) -> np.ndarray:
    """The coverage of a hard round brush, 0 to 255: its distance to a segment, with an edge of one pixel."""
    y, x = np.mgrid[0.5:300, 0.5:400]
    (ax, ay), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.clip(radius + 0.5 - np.hypot(x - ax - along * dx, y - ay - along * dy), 0, 1) * 255


def grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Grey dilation by a disc, offset by offset."""
    height, width = mask.shape
    padded = np.pad(mask, radius)
    offsets = [(dy, dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1)
               if dy * dy + dx * dx <= radius * radius]
    return np.max([padded[radius + dy:radius + dy + height, radius + dx:radius + dx + width] for dy, dx in offsets], 0)


def blurred(mask: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian cut off at three deviations, in float64, pixels beyond the edge being as those at it."""
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-np.arange(-reach, reach + 1) ** 2 / (2 * sigma**2))
    values = mask.astype(np.float64)
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if axis == at else (0, 0) for at in (0, 1)], "edge")
        values = np.apply_along_axis(np.convolve, axis, padded, kernel / kernel.sum(), "valid")
    return values


def test_a_stroke_lies_where_it_was_drawn(editor) -> None:
    editor.draw(START, END)
    mask = editor.stored()
    # The mouse moves by whole pixels of the page, so places are known to about one pixel of the picture.
    assert mask.shape == (300, 400) and np.abs(mask - capsule(START, END, 20)).mean() < 2
    assert mask[150, 200] == 255 and mask[10, 390] == 0


def test_zoomed_in_and_moved_a_stroke_lies_where_it_was_drawn(editor) -> None:
    editor.page.mouse.move(*editor.at(300, 200))
    editor.page.keyboard.down("Control")
    for _ in range(5):
        editor.page.mouse.wheel(0, -200)
    editor.page.keyboard.up("Control")
    editor.page.wait_for_timeout(50)
    scale = editor.view()["scale"]
    before, (x, y) = editor.at(300, 200), map(round, editor.middle())
    editor.page.mouse.move(x, y)
    editor.page.keyboard.down("Space")
    editor.page.mouse.down()
    editor.page.mouse.move(x - 60, y + 25, steps=3)
    editor.page.mouse.up()
    editor.page.keyboard.up("Space")
    after = editor.at(300, 200)
    assert scale > 3 and (after[0] - before[0], after[1] - before[1]) == pytest.approx((-60, 25))
    editor.set(size=10)
    editor.draw((290, 190), (320, 210))
    expected = capsule((290, 190), (320, 210), 5)
    assert np.abs(editor.stored() - expected).sum() < 0.1 * expected.sum()


def test_strokes_are_erased_undone_and_redone(editor) -> None:
    editor.draw(START, END)
    drawn = editor.stored()
    editor.page.keyboard.press("e")
    editor.draw((200, 20), (200, 280))
    erased = editor.stored()
    assert drawn[150, 200] == 255 and erased[150, 200] == 0 and np.all(erased <= drawn)
    editor.page.keyboard.press("b")
    editor.draw((20, 20), (380, 20))
    both = editor.stored()
    for keys, expected in (("Control+z", erased), ("Control+z", drawn), ("Control+z", None), ("Control+z", None),
                           ("Control+Shift+Z", drawn), ("Control+y", erased), ("Control+y", both), ("Control+y", both)):
        editor.page.keyboard.press(keys)
        found = editor.stored()
        assert (found is None) == (expected is None) and (expected is None or np.array_equal(found, expected)), keys
    editor.do("undo")
    editor.draw((20, 290), (60, 290))
    expect(editor.page.locator('[data-do="redo"]')).to_have_attribute("aria-disabled", "true")
    editor.page.keyboard.press("Control+y")  # what was undone is gone once something else is drawn
    assert editor.stored()[20, 300] == 0


def test_the_right_button_erases_and_opacity_covers_once(editor) -> None:
    editor.set(opacity=0.5)
    editor.draw((100, 100), (200, 100), (100, 100), (200, 100))
    assert editor.stored()[100, 150] == 128
    editor.draw((100, 100), (200, 100))
    assert editor.stored()[100, 150] == 192
    editor.set(opacity=1)
    editor.draw((140, 100), (160, 100), button="right")
    assert editor.stored()[100, 150] == 0


def test_inverting_and_filling_are_exact(editor) -> None:
    editor.set(softness=1, size=200)
    editor.draw(START, END)
    soft = editor.stored()
    assert len(np.unique(soft)) > 200
    editor.page.keyboard.press("i")
    assert np.array_equal(editor.stored(), 255 - soft)
    editor.do("invert")
    assert np.array_equal(editor.stored(), soft)
    editor.do("fill")
    assert editor.stored().min() == 255
    editor.do("clear")
    assert editor.stored() is None and editor.form()["mask"] == ""
    editor.do("undo")
    editor.do("undo")
    assert np.array_equal(editor.stored(), soft)


@pytest.mark.parametrize("softness", [0, 1])
def test_a_mask_grows_shrinks_and_is_feathered(editor, softness) -> None:
    editor.set(softness=softness, size=90, amount=9)
    editor.draw((10, 40), (200, 150))
    editor.draw((250, 290), (395, 290))
    mask = editor.stored()
    for kind, expected in (("grow", grown(mask, 9)), ("shrink", 255 - grown(255 - mask, 9)),
                           ("feather", blurred(mask, 4.5))):
        editor.do(kind)
        expect(editor.page.locator(".editor-busy")).to_be_hidden()
        assert np.abs(editor.stored() - expected).max() <= (0.51 if kind == "feather" else 0), kind
        editor.do("undo")
        assert np.array_equal(editor.stored(), mask)


def test_the_same_mask_is_there_after_a_reload_and_in_another_tab(editor, open_editors) -> None:
    editor.set(softness=0.5)
    editor.draw(START, END)
    mask, seen = editor.stored(), editor.looks()
    key = editor.form()["mask"]
    editor.show("inpaint")
    assert np.array_equal(editor.looks(), seen) and editor.form()["mask"] == key
    editor.draw((300, 50), (302, 50))
    editor.do("undo")
    assert np.array_equal(editor.stored(), mask) and editor.form()["mask"] == key
    other = open_editors("image", "inpaint")
    other.page.wait_for_function("[...document.querySelectorAll('darkroom-editor')].every(({ picture }) => picture)")
    assert [one["picture"] for one in other.sizes()] == [[400, 300]] * 2


def test_what_is_painted_is_stored_by_itself(editor) -> None:
    editor.draw(START, END)
    expect(editor.page.locator(".editor-state")).to_have_text("Stored")
    assert editor.form()["mask"]


def test_a_sketch_has_colours_that_can_be_picked(open_editors) -> None:
    editor = open_editors("sketch")
    editor.give(Image.new("RGB", (400, 300), (10, 200, 30)))
    editor.set(size=60, softness=0, opacity=1, color="#ff0000")
    editor.draw((50, 50), (150, 50))
    editor.page.keyboard.press("p")
    editor.draw((300, 250), (301, 250))
    assert editor.values()["color"] == "#0ac81e"
    editor.set(opacity=0.5)
    editor.draw((50, 50), (150, 50))
    layer = editor.stored("sketch")
    assert layer.shape == (300, 400, 4) and layer[200, 200, 3] == 0 and layer[50, 100, 3] == 255
    assert np.abs(layer[50, 100, :3].astype(int) - (132, 100, 15)).max() <= 1
    assert "mask" not in editor.form()


def test_editors_of_one_tab_show_the_same(open_editors) -> None:
    editor = open_editors("inpaint", "sketch", "inpaint_sketch")
    editor.give(picture())
    editor.draw(START, END)
    editor.stored()
    editor.page.wait_for_timeout(200)
    assert [one["picture"] for one in editor.sizes()] == [[400, 300]] * 3
    assert [one["painted"] for one in editor.sizes()] == [True, False, False]
    third = editor.nth(2)
    third.draw(START, END)
    third.stored("sketch")
    editor.page.wait_for_timeout(200)
    assert [one["painted"] for one in editor.sizes()] == [True, True, True]
    editor.do("remove")
    expect(editor.page.locator(".drop").nth(2)).to_be_visible()
    assert set(editor.form().values()) == {""}


def test_paint_stays_on_a_picture_of_the_same_size_only(editor) -> None:
    editor.draw(START, END)
    mask = editor.stored()
    editor.give(Image.new("RGB", (400, 300), "navy"))
    assert np.array_equal(editor.stored(), mask)
    editor.give(Image.new("RGB", (200, 300), "navy"))
    assert editor.site.app.forms.load("", "img2img")["mask"]  # until it is used, looking takes nothing away
    assert editor.sizes()[0] == {"picture": [200, 300], "painted": False} and editor.stored() is None


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(open_editors, kind) -> None:
    editor = open_editors("image")
    editor.page.mouse.move(*editor.middle())
    editor.bring(kind, encoded(picture((64, 48))))
    expect(editor.page.locator(".editor-size")).to_contain_text("64×48")
    assert list(editor.form()) == ["init_image"]


def test_a_file_that_is_no_picture_is_refused_and_changes_nothing(open_editors) -> None:
    editor = open_editors("inpaint", quiet=False)
    editor.give(picture())
    editor.draw(START, END)
    mask, form = editor.stored(), editor.form()
    editor.page.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no"})
    expect(editor.page.locator(".toast")).to_contain_text("it is no picture")
    assert np.array_equal(editor.stored(), mask) and editor.form() == form


def test_keys_and_the_wheel_change_the_brush_but_not_while_typing(editor) -> None:
    editor.page.mouse.move(*editor.middle())
    editor.page.keyboard.press("]")
    assert editor.values()["size"] == pytest.approx(46)
    editor.page.keyboard.press("[")
    editor.page.keyboard.down("Shift")
    editor.page.mouse.wheel(0, 100)
    editor.page.keyboard.up("Shift")
    editor.page.wait_for_timeout(50)
    assert editor.values()["size"] == pytest.approx(40 / 1.15)
    editor.draw(START, END)
    mask = editor.stored()
    editor.page.locator(".editor-amount").focus()
    for keys in ("]", "i", "Control+z"):
        editor.page.keyboard.press(keys)
    assert np.array_equal(editor.stored(), mask) and editor.values()["size"] == pytest.approx(40 / 1.15)
    editor.page.locator(".editor-amount").blur()
    editor.page.mouse.move(2, 700)
    editor.page.evaluate("document.activeElement.blur()")
    editor.page.keyboard.press("i")
    assert np.array_equal(editor.stored(), mask)


def test_two_fingers_move_and_zoom_and_leave_no_paint(open_editors) -> None:
    editor = open_editors("inpaint", viewport={"width": 390, "height": 844}, has_touch=True)
    editor.give(picture())
    x, y = editor.middle()
    before, held = editor.view()["scale"], editor.at(200, 150)
    editor.touch([(x - 40, y)], [(x - 40, y), (x + 40, y)], [(x - 80, y), (x + 80, y)], [])
    assert editor.view()["scale"] == pytest.approx(2 * before, rel=0.02)
    assert editor.at(200, 150) == pytest.approx(held, abs=2)
    assert editor.stored() is None
    editor.touch([(x, y)], [(x + 30, y)], [])
    mask = editor.stored()
    assert mask.max() == 255 and mask[150, 205] == 255
    assert editor.page.evaluate("document.documentElement.scrollWidth") <= 390
    heights = editor.page.locator(".editor-tool").evaluate_all("all => all.map((one) => one.offsetHeight)")
    assert min(heights) >= 44


def test_a_pens_pressure_is_the_brushs_size_and_its_other_end_erases(editor) -> None:
    def pen(start, end, force, button="left", buttons=1):
        (x, y), (to_x, to_y) = editor.at(*start), editor.at(*end)
        session = editor.page.context.new_cdp_session(editor.page)
        for kind, place in (("mousePressed", (x, y)), ("mouseMoved", (to_x, to_y)), ("mouseReleased", (to_x, to_y))):
            session.send("Input.dispatchMouseEvent", {
                "type": kind, "x": place[0], "y": place[1], "button": button, "buttons": buttons, "force": force,
                "pointerType": "pen", "clickCount": 1})
    pen((100, 100), (200, 100), 0.5)
    mask = editor.stored()
    assert mask[100, 150] == 255 and 17 <= (mask[:, 150] > 127).sum() <= 23
    pen((100, 200), (200, 200), 1.0)
    assert 37 <= (editor.stored()[:, 150] > 127)[150:].sum() <= 43
    pen((140, 100), (160, 100), 1.0, "right", 2)
    assert editor.stored()[100, 150] == 0


def test_full_screen_and_back_keeps_the_paint(editor) -> None:
    editor.draw(START, END)
    small = editor.page.locator(".editor-stage").bounding_box()
    editor.page.keyboard.press("s")
    editor.page.wait_for_timeout(300)
    large = editor.page.locator(".editor-stage").bounding_box()
    assert large["width"] * large["height"] > 1.5 * small["width"] * small["height"]
    editor.draw((20, 280), (100, 280))
    editor.page.keyboard.press("s")
    editor.page.wait_for_timeout(300)
    assert editor.page.locator(".editor-stage").bounding_box() == small
    mask = editor.stored()
    assert mask[280, 60] == mask[150, 200] == 255


def test_what_could_not_be_stored_is_said_and_stored_later(open_editors) -> None:
    editor = open_editors("inpaint", quiet=False)
    editor.give(picture())
    editor.page.route("**/page/inputs", lambda route: route.abort())
    editor.draw(START, END)
    expect(editor.page.locator(".editor-state")).to_have_text("Not stored")
    expect(editor.page.locator(".toast")).to_contain_text("does not answer")
    editor.page.unroute("**/page/inputs")
    assert editor.stored()[150, 200] == 255
    expect(editor.page.locator(".editor-state")).to_have_text("Stored")


def test_the_history_forgets_its_oldest_steps_when_memory_is_used_up(editor) -> None:
    kept = editor.page.evaluate("""async () => {
        const { History } = await import(new URL("darkroom/assets/test/editor-history.js", location.href));
        const history = new History(1000), tile = { width: 10, height: 10 };
        for (const key of [1, 2, 3]) history.add(new Map([[key, tile], [9, null]]));
        const sizes = [history.size()], keys = [];
        for (let step = history.undo(); step; step = history.undo()) keys.push([...step.keys()][0]);
        history.redo();
        history.add(new Map([[4, { width: 50, height: 50 }]]));
        return [sizes, keys, history.done.length, history.undone.length];
    }""")
    assert kept == [[800], [3, 2], 1, 0]


def test_every_tool_says_what_it_does(editor) -> None:
    names: list[str] = editor.page.locator(".editor-tool").evaluate_all("all => all.map((one) => one.ariaLabel)")
    assert all(names) and len(set(names)) == len(names) == 16
