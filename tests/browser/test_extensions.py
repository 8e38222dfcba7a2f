"""Extensions from an address, on the page."""

import dataclasses
import zipfile
from pathlib import Path

from playwright.sync_api import expect

from modules.host.discover import Found
from modules.launcher.flags import Flags
from tests.web.running import fake_engine, make_app, serving

PLUGIN = '''from modules.plugin import Plugin


class Frame(Plugin):
    id = "frame"
    name = "A <i>frame</i>"
    version = "{version}"
    description = "Puts a frame around pictures."
'''


def written(path: Path, version: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("plugin.py", PLUGIN.format(version=version))
    return path


def test_an_extension_is_looked_at_installed_and_brought_up_to_date(open_page, site, tmp_path) -> None:
    archive = written(tmp_path / "frame.zip", "1.0")
    page = open_page()
    page.get_by_role("tab", name="Extensions").click()
    address = page.locator("darkroom-extensions input[name=address]")
    address.fill(str(archive))
    address.press("Enter")
    dialog = page.locator("darkroom-extensions dialog")
    expect(dialog).to_contain_text("A <i>frame</i> 1.0")
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(".extension")).to_have_count(0)
    page.click("#extensions_look")
    dialog.get_by_role("button", name="Install").click()
    expect(page.locator(".extension")).to_contain_text("Takes effect at the next start.")
    expect(address).to_have_value("")
    assert (site.app.folders.root / "extensions/frame/plugin.py").is_file()
    page.get_by_role("button", name="Update").click()
    expect(page.locator(".toast.note")).to_contain_text("It is up to date.")
    written(archive, "1.1")
    page.get_by_role("button", name="Update").click()
    dialog.get_by_role("button", name="Update").click()
    expect(page.locator(".extension h3")).to_have_text("A <i>frame</i> 1.1")


def test_where_others_reach_the_program_it_says_why_nothing_can_be_changed(open_page, tmp_path) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path), (Found("frame", tmp_path, None),))
    with serving(dataclasses.replace(app, flags=Flags(share=True))) as reachable:
        page = open_page(url=reachable.url)
        page.get_by_role("tab", name="Extensions").click()
        expect(page.locator("darkroom-extensions .locked")).to_contain_text("--enable-insecure-extension-access")
        expect(page.locator("darkroom-extensions form")).to_be_hidden()
        expect(page.locator(".extension input")).to_be_disabled()
