from modules.prompts.styles import Style
from modules.web.styles import applied
from tests.web.running import fake_engine, make_app


def test_chosen_styles_are_written_into_the_prompts(tmp_path) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path))
    app.styles.save(Style("Ink", "{prompt}, ink", "blur"))
    values = {"prompt": "a cat", "negative_prompt": "", "styles": ["Ink", "unknown"]}
    assert applied(values, app) == {"prompt": "a cat, ink", "negative_prompt": "blur", "styles": ()}
    app.styles.save(Style("Endless", "{prompt}" * 10_000, ""))
    grown = {"prompt": "x" * 100, "negative_prompt": "", "styles": ["Endless"]}
    assert applied(grown, app) == grown | {"styles": ("Endless",)}
    app.close()
