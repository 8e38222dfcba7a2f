import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.core.settings import Settings
from modules.plugin import Context, NoParams, Plugin, param
from modules.sampling.samplers import SAMPLERS
from modules.web.tabs.settings import changes, extension_fields, form, in_force, storage

OWN = dataclasses.replace(SAMPLERS[0], name="Of an extension")
APP = SimpleNamespace(upscalers=lambda: ("None", "R-ESRGAN 4x+", "DAT x2", "Mine"),
                      host=SimpleNamespace(samplers=lambda: (*SAMPLERS, OWN)))


def test_what_files_and_extensions_add_can_be_chosen() -> None:
    fields = {field.name: field.choices for field in form(APP)}
    assert fields["hide_samplers"][-1] == "Of an extension" and "Euler a" in fields["hide_samplers"]
    assert fields["upscaler_for_img2img"] == ("None", "R-ESRGAN 4x+", "DAT x2", "Mine")
    assert (fields["realesrgan_enabled_models"], fields["dat_enabled_models"]) == (("R-ESRGAN 4x+",), ("DAT x2",))


def test_only_what_differs_is_saved() -> None:
    fields = form(APP)
    shown = {field.name: getattr(Settings(), field.name) for field in fields}
    assert changes(fields, shown, shown) == {}
    assert changes(fields, shown | {"jpeg_quality": 55.0, "hide_samplers": ["DDIM"], "sd_vae": "ignored"},
                   shown) == {"jpeg_quality": 55, "hide_samplers": ("DDIM",)}


def test_a_bad_value_is_named_by_its_label() -> None:
    with pytest.raises(InvalidRequest, match="Quality for saved jpeg"):
        changes(form(APP), {"jpeg_quality": 500}, {"jpeg_quality": 80})


@dataclass(frozen=True)
class Own:
    """What an extension keeps."""

    folder: str = param("here", "Folder")
    limit: int = param(3, "Limit", minimum=1, maximum=9)


class Keeper(Plugin):
    id, name, Settings = "keeper", "Keeper", Own


def test_settings_of_extensions_are_shown_kept_and_reach_their_hooks() -> None:
    keeper = Keeper(Context(Path(), Path(), {}))
    others = type("Other", (Plugin,), {"id": "other", "Settings": NoParams})(keeper.context)
    plugins = (keeper, others)
    [(name, fields)] = extension_fields(plugins).items()
    assert name == "Keeper" and [field.elem_id for field in fields] == ["setting_keeper_folder", "setting_keeper_limit"]
    settings = Settings(extension_settings=json.dumps({"turned_off": {"a": 1}, "keeper": {"limit": 5, "gone": 2}}))
    values = in_force(fields, settings, plugins)
    assert values == {"keeper/folder": "here", "keeper/limit": 5}
    changed = changes(fields, {**values, "keeper/folder": "there"}, values)
    stored = storage({**changed, "jpeg_quality": 55}, settings.extension_settings, plugins)
    assert json.loads(stored["extension_settings"]) == {"turned_off": {"a": 1},
                                                        "keeper": {"folder": "there", "limit": 5}}
    assert stored["jpeg_quality"] == 55 and storage({"jpeg_quality": 1}, "{}", plugins) == {"jpeg_quality": 1}
    request = Request(prompt="", settings=replace(settings, extension_settings=stored["extension_settings"]))
    assert keeper.settings(request) == Own("there", 5) and others.settings(request) == NoParams()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"keeper": 3}', '{"keeper": {"limit": 99}}',
                                  '{"keeper": {"limit": []}}'])
def test_damaged_settings_of_extensions_are_the_defaults(text: str) -> None:
    keeper = Keeper(Context(Path(), Path(), {}))
    assert keeper.settings(Request(prompt="", settings=Settings(extension_settings=text))) == Own()


def test_what_an_extension_does_not_take_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"keeper\.limit"):
        storage({"keeper/limit": 99}, "not read", (Keeper(Context(Path(), Path(), {})),))
