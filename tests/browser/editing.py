"""A page with nothing but editors, over the real server, and what its tests do there."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from modules.library.inputs import Inputs
from tests.web.running import Site

DESK = {"width": 1000, "height": 760}
DOCUMENT = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><title>Editors</title>
<link rel="stylesheet" href="darkroom/assets/test/page.css">
<link rel="stylesheet" href="darkroom/assets/test/editor.css">
<style>body {{ margin: 0; }} .editor-stage {{ height: 320px; }}</style>
<script type="module" src="darkroom/assets/test/editor.js"></script>{editors}"""
EDITOR = "const editor = document.querySelectorAll('darkroom-editor')[index];"
FORM = "/forms/img2img"


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def picture(size: tuple[int, int] = (400, 300)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert("RGB")


@dataclass(frozen=True)
class Editing:
    """One of the editors on a page; places are pixels of its picture."""

    page: Page
    site: Site
    index: int = 0

    def show(self, *modes: str) -> None:
        """Show one editor for each mode and wait until they show what the form says."""
        editors = "".join(f'<darkroom-editor tab="img2img" mode="{mode}"></darkroom-editor>' for mode in modes)
        address = f"{self.site.url}/editors"
        self.page.unroute(address)
        self.page.route(address, lambda route: route.fulfill(
            content_type="text/html", body=DOCUMENT.format(editors=editors)))
        with self.page.expect_response(lambda answer: answer.url.endswith(FORM)):
            self.page.goto(address, wait_until="load")
        self.page.wait_for_timeout(200)

    def nth(self, index: int) -> Editing:
        return replace(self, index=index)

    def ask(self, script: str, **values: Any) -> Any:
        """Evaluate ``script``, which knows ``editor`` and ``values``, in the page."""
        return self.page.evaluate(f"async ({{index, values}}) => {{ {EDITOR} {script} }}",
                                  {"index": self.index, "values": values})

    def give(self, image: Image.Image) -> None:
        """Choose a picture through the file dialog's control."""
        with self.page.expect_response(lambda answer: answer.url.endswith(FORM) and answer.request.method == "POST"):
            self.page.locator("input[type=file]").nth(self.index).set_input_files(
                {"name": "a.png", "mimeType": "image/png", "buffer": encoded(image)})
        expect(self.page.locator(".editor-size").nth(self.index)).to_contain_text(f"{image.width}×{image.height}")
        self.page.wait_for_timeout(100)

    def bring(self, kind: str, data: bytes) -> None:
        """Drop a file on the editor or paste it."""
        self.ask("""
            const bytes = Uint8Array.from(atob(values.data), (one) => one.charCodeAt(0)), data = new DataTransfer();
            data.items.add(new File([bytes], "a.png", { type: "image/png" }));
            const usual = { bubbles: true, cancelable: true };
            const event = values.kind === "drop" ? new DragEvent("drop", { dataTransfer: data, ...usual })
              : new ClipboardEvent("paste", { clipboardData: data, ...usual });
            (values.kind === "drop" ? editor.stage : document.body).dispatchEvent(event);""",
                 kind=kind, data=base64.b64encode(data).decode())

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the picture is seen, in pixels of the page."""
        return tuple(self.ask("""
            const box = editor.stage.getBoundingClientRect(), { view } = editor.screen, ratio = devicePixelRatio;
            return [box.left + editor.stage.clientLeft + (view.x + values.x * view.scale) / ratio,
                    box.top + editor.stage.clientTop + (view.y + values.y * view.scale) / ratio];""", x=x, y=y))

    def middle(self) -> tuple[float, float]:
        box = self.page.locator(".editor-stage").nth(self.index).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def draw(self, *points: tuple[float, float], button: str = "left") -> None:
        """Draw a stroke through points of the picture with the mouse."""
        self.ask("editor.scrollIntoView({ block: 'nearest' });")
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down(button=button)
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=4)
        self.page.mouse.up(button=button)

    def touch(self, *moments: list[tuple[float, float]]) -> None:
        """Put fingers on the page, move them, and take them off, moment by moment."""
        session = self.page.context.new_cdp_session(self.page)
        before = 0
        for fingers in moments:
            kind = "touchMove" if len(fingers) == before else "touchStart" if fingers else "touchEnd"
            session.send("Input.dispatchTouchEvent", {
                "type": kind, "touchPoints": [{"x": x, "y": y, "id": at} for at, (x, y) in enumerate(fingers)]})
            before = len(fingers)
        self.page.wait_for_timeout(50)

    def do(self, action: str) -> None:
        self.page.locator("darkroom-editor").nth(self.index).locator(f'[data-do="{action}"]').click()

    def set(self, **values: Any) -> None:
        self.ask("Object.assign(editor.values, values); editor.showValues();", **values)

    def values(self) -> dict[str, Any]:
        return self.ask("return editor.values;")

    def view(self) -> dict[str, float]:
        return self.ask("return editor.screen.view;")

    def sizes(self) -> list[dict[str, Any]]:
        """Return the size of each editor's picture and whether something is painted on it."""
        return self.page.evaluate("""[...document.querySelectorAll("darkroom-editor")].map(({ picture, layer }) => ({
            picture: picture && [picture.width, picture.height], painted: Boolean(layer && !layer.empty()) }))""")

    def looks(self) -> np.ndarray:
        """Return the pixels of the stage as they are seen, the brush left out."""
        self.page.mouse.move(0, 0)
        self.page.wait_for_timeout(100)
        shot = self.page.locator(".editor-stage").nth(self.index).screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def form(self) -> dict[str, str]:
        """Return the ids in the stored form once everything painted is on the server."""
        self.ask("await editor.saved();")
        return self.site.app.forms.load("", "img2img")

    def stored(self, name: str = "mask") -> np.ndarray | None:
        """Return the pixels of a stored layer, those of a mask as one channel, or None where there is none."""
        key = self.form().get(name)
        if not key:
            return None
        pixels = np.asarray(Inputs(self.site.app.folders.inputs).open(key))
        if name != "mask":
            return pixels
        grey = pixels.reshape(*pixels.shape[:2], -1)
        assert grey.shape[2] in (1, 3) and np.all(grey == grey[..., :1])
        return grey[..., 0]


@contextmanager
def editing(browser: Browser, site: Site) -> Iterator[Callable[..., Editing]]:
    """Give a function that opens a window with editors; unless not ``quiet``, errors in the console are failures."""
    errors: list[str] = []
    contexts = []

    def opened(*modes: str, quiet: bool = True, **options: Any) -> Editing:
        contexts.append(browser.new_context(**{"viewport": DESK} | options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        if quiet:
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        shown = Editing(page, site)
        shown.show(*modes)
        return shown

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
