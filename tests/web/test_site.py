import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modules.core.errors import DarkroomError
from modules.core.settings import setting_infos
from modules.launcher.flags import Flags
from modules.web.site import FIRST_PORT, bind
from tests.web.running import Site, fake_engine, make_app, serving

ROOT = Path(__file__).parents[2]
BYTES_PER_COMPONENT = 800  # of the document, of which nearly all is the description of its controls

# As AUTOMATIC1111's page has them; its users' scripts and styles go by these names.
ELEMENT_IDS = (
    "txt2img_prompt", "txt2img_neg_prompt", "txt2img_generate", "txt2img_interrupt", "txt2img_skip",
    "txt2img_sampling", "txt2img_scheduler", "txt2img_steps", "txt2img_width", "txt2img_height",
    "txt2img_res_switch_btn", "txt2img_batch_count", "txt2img_batch_size", "txt2img_cfg_scale", "txt2img_seed",
    "txt2img_random_seed", "txt2img_reuse_seed", "txt2img_subseed_show", "txt2img_subseed",
    "txt2img_subseed_strength", "txt2img_random_subseed", "txt2img_reuse_subseed", "txt2img_seed_resize_from_w",
    "txt2img_seed_resize_from_h", "txt2img_token_counter", "txt2img_negative_token_counter", "txt2img_styles",
    "paste", "txt2img_clear_prompt", "txt2img_override_settings", "setting_sd_model_checkpoint", "setting_sd_vae",
    "settings_submit", "txt2img_generate_box", "txt2img_tools", "txt2img_toprow", "txt2img_settings",
    "txt2img_results", "quicksettings",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    with serving(make_app(root, fake_engine(root))) as running:
        yield running


@pytest.fixture(scope="module")
def document(site: Site) -> str:
    return _get(site.url + "/")


@pytest.fixture(scope="module")
def config(document: str) -> dict:
    return json.JSONDecoder().raw_decode(document.split("window.gradio_config = ", 1)[1])[0]


def test_every_element_id_is_there_once(config: dict) -> None:
    ids = [component["props"].get("elem_id") for component in config["components"]]
    used = [one for one in ids if one]
    assert set(ELEMENT_IDS) <= set(used)
    assert len(used) == len(set(used))


def test_every_setting_that_is_shown_has_its_control(config: dict) -> None:
    ids = {component["props"].get("elem_id") for component in config["components"]}
    assert {name for name in setting_infos() if f"setting_{name}" not in ids} == {
        "disabled_extensions", "extension_settings"}


def test_every_control_has_a_label(config: dict) -> None:
    kinds = {"textbox", "slider", "dropdown", "number", "checkbox"}
    assert [c["props"].get("elem_id") for c in config["components"]
            if c["type"] in kinds and c["props"].get("visible") is True and not c["props"].get("label")] == []


def test_labels_and_their_order_are_those_of_automatic1111(config: dict) -> None:
    labels = [component["props"].get("label") for component in config["components"]]
    wanted = ["Stable Diffusion checkpoint", "SD VAE", "Prompt", "Negative prompt", "Sampling method",
              "Schedule type", "Sampling steps", "Width", "Height", "Batch count", "Batch size", "CFG Scale", "Seed",
              "Extra", "Variation seed", "Variation strength", "Resize seed from width", "Resize seed from height"]
    assert [label for label in labels if label in wanted][:len(wanted)] == wanted


def test_tabs_are_in_order(config: dict) -> None:
    tabs = [component["props"]["label"] for component in config["components"]
            if component["type"] == "tabitem" and component["props"]["elem_id"].startswith("tab_")]
    assert tabs == ["txt2img", "img2img", "Extras", "PNG Info", "Checkpoint Merger", "Inspector", "Queue", "Gallery",
                    "Settings", "Extensions"]


def test_no_event_of_the_page_is_part_of_the_public_api(config: dict) -> None:
    assert {dependency["api_visibility"] for dependency in config["dependencies"]} == {"private"}
    assert {dependency["queue"] for dependency in config["dependencies"]} == {False}


def test_the_page_is_small(document: str, config: dict) -> None:
    assert len(document.encode()) < BYTES_PER_COMPONENT * len(config["components"])


def test_the_page_loads_nothing_from_another_site(document: str, site: Site) -> None:
    assert not re.findall(r'(?:src|href|content)="(?:https?:)?//[^"]*"', document)
    assert "@import" not in _get(site.url + "/theme.css?v=x")
    assert not re.findall(r"url\(['\"]?https?:", _get(site.url + "/theme.css?v=x"))


def test_our_script_and_style_are_where_the_document_says(document: str, site: Site) -> None:
    for kind in ("page.js", "page.css"):
        path = re.search(rf'"\./(darkroom/assets/\w+/{kind})"', document)
        assert path and _get(f"{site.url}/{path[1]}")


def test_it_lives_under_a_path(tmp_path: Path) -> None:
    flags = replace(Flags(), subpath="/studio/")
    with serving(make_app(tmp_path, fake_engine(tmp_path)), flags) as site:
        document = _get(site.url + "/")
        config = json.JSONDecoder().raw_decode(document.split("window.gradio_config = ", 1)[1])[0]
        assert config["root"].endswith("/studio")
        assert json.loads(_get(site.url + "/darkroom/page/session"))["models"] == 1
        assert _get(site.url + re.search(r'\./(assets/index-[^"]+\.js)', document)[0][1:])


def test_without_a_port_the_first_free_one_is_taken_and_a_taken_one_is_refused() -> None:
    with bind("127.0.0.1", None) as first, bind("127.0.0.1", None) as second:
        ports = [listener.getsockname()[1] for listener in (first, second)]
        assert FIRST_PORT <= ports[0] < ports[1]
        with pytest.raises(DarkroomError, match=f"{ports[0]} is taken"):
            bind("127.0.0.1", ports[0])
    with pytest.raises(DarkroomError, match="cannot be used"):
        bind("192.0.2.1", 50000)


def test_neither_torch_nor_gradio_is_imported_with_the_server() -> None:
    code = "import sys, modules.web.site; print([n for n in ('torch', 'gradio', 'fastapi', 'PIL') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_torch_is_not_imported_with_the_page() -> None:
    code = ("import sys, modules.web.routes, modules.web.page, modules.web.theme, modules.app.app; "
            "print([n for n in ('torch', 'diffusers', 'transformers', 'cv2') if n in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def test_a_free_port_can_be_bound_on_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        listener = bind("::1", 0)
    except DarkroomError:
        pytest.skip("IPv6 is switched off on this machine")
    with listener:
        assert listener.getsockname()[0] == "::1"


def test_the_interfaces_for_programs_are_there_beside_the_page_and_without_it(site: Site, tmp_path: Path) -> None:
    assert "swagger" not in _get(site.url + "/docs").lower()
    assert isinstance(json.loads(_get(site.url + "/darkroom/v1/jobs"))["jobs"], list)
    with serving(make_app(tmp_path, fake_engine(tmp_path)), replace(Flags(), nowebui=True)) as bare:
        paths = json.loads(_get(bare.url + "/openapi.json"))["paths"]
        assert "/sdapi/v1/txt2img" in paths and not [path for path in paths if "/page" in path]
        assert json.loads(_get(bare.url + "/internal/ping")) == {}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            _get(bare.url + "/")
