from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import pytest

from modules.host.discover import Found
from modules.plugin import Context, Plugin, param
from modules.web.tabs import txt2img
from tests.web.running import fake_engine, make_app


@dataclass(frozen=True)
class Params:
    enabled: bool = param(True, "Use it")
    strength: float = param(0.5, "Strength", minimum=0.0, maximum=1.0)


class Demo(Plugin):
    id = "demo"
    name = "A demonstration"
    Params = Params


class Silent(Plugin):
    id = "silent"


@pytest.fixture
def app(tmp_path: Path):
    context = Context(tmp_path, tmp_path, {})
    found = (Found("demo", tmp_path, Demo(context)), Found("silent", tmp_path, Silent(context)),
             Found("off", tmp_path, None), Found("bad", tmp_path, None, "ImportError: no"))
    built = make_app(tmp_path, fake_engine(tmp_path), found)
    yield built
    built.close()


def test_a_plugin_with_parameters_gets_a_panel_and_no_other_does(app) -> None:
    with gr.Blocks() as page:
        controls = txt2img.build(app)
    panels = [block for block in page.blocks.values() if isinstance(block, gr.Accordion)]
    assert [panel.label for panel in panels] == ["A demonstration"]
    assert controls["demo/strength"].elem_id == "txt2img_demo_strength" and controls["demo/enabled"].value is True
    assert set(controls) == {field.name for field in controls.form}


def test_hidden_samplers_are_not_offered_and_styles_come_from_their_file(app) -> None:
    app.settings.update({"hide_samplers": ["DDIM"]})
    app.folders.styles.write_text("name,prompt,negative_prompt\nfilm,{prompt} on film,digital\n", "utf-8")
    fields = {field.name: field for field in txt2img.form(app)}
    assert "DDIM" not in fields["sampler"].choices and "Euler a" in fields["sampler"].choices
    assert fields["styles"].choices == ("film",)
