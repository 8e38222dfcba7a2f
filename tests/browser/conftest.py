"""One server and one Chromium for all browser tests; every test fails on an error in the console."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from modules.core.result import Failure
from tests.web.running import Site, fake_engine, make_app, serving

FAILURES = {"impossible": Failure("OutOfMemory", "3 GiB are needed and 2 GiB are free.", "Make it smaller.", 507)}
DESK = {"width": 1440, "height": 900}
PATIENCE = 15_000  # milliseconds; the machine may be busy with other tests


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("browser")
    engine = fake_engine(root, failure=FAILURES, seconds_per_step=0.01)
    with serving(make_app(root, engine)) as running:
        yield running


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, headless=True,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Return a function that opens the page, ready to use, in a window of its own."""
    errors: list[str] = []
    contexts = []

    def opened(viewport: dict = DESK, url: str = site.url, **options) -> Page:
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if _is_ours(request.url, url) else errors.append(request.url))
        show(page, url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(autouse=True)
def idle(site: Site) -> Iterator[None]:
    """Leave nothing running, waiting, paused or slow to the next test."""
    yield
    site.app.resume()
    site.engine.seconds_per_step = 0.01
    for job in site.app.jobs(states=("queued", "running")):
        site.app.cancel(job.id)
    site.engine.hold.set()
    for job in site.app.jobs(states=("running",)):
        site.app.wait(job.id, 5)
    for tab in ("txt2img", "img2img", "extras", "modelmerger"):
        site.app.forms.save("", tab, {})


def show(page: Page, url: str) -> None:
    """Go to ``url`` and wait until the stored form is shown."""
    with page.expect_response(lambda response: "/darkroom/page/session" in response.url):
        page.goto(url, wait_until="domcontentloaded")
    page.wait_for_selector("#txt2img_generate")
    page.wait_for_selector("body.restored-img2img")


def _is_ours(address: str, url: str) -> bool:
    return address.startswith((url, "data:", "blob:"))
