import pytest

from modules.core.errors import InvalidRequest
from modules.core.settings import Settings
from modules.web.tabs.settings import changes, form


def test_only_what_differs_is_saved() -> None:
    shown = {field.name: getattr(Settings(), field.name) for field in form()}
    assert changes(form(), shown, Settings()) == {}
    assert changes(form(), shown | {"jpeg_quality": 55.0, "hide_samplers": ["DDIM"], "sd_vae": "ignored"},
                   Settings()) == {"jpeg_quality": 55, "hide_samplers": ("DDIM",)}


def test_a_bad_value_is_named_by_its_label() -> None:
    with pytest.raises(InvalidRequest, match="Quality for saved jpeg"):
        changes(form(), {"jpeg_quality": 500}, Settings())
