"""The starter's model card stands beside the model and among the documents."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CARD, DOCS = ROOT / "models/Stable-diffusion/darkroom-starter/README.md", ROOT / "docs/starter"


def test_both_copies_of_the_model_card_say_the_same():
    told = CARD.read_text("utf-8").replace("](../../../docs/starter/", "](")
    assert told == (DOCS / "README.md").read_text("utf-8")


def test_what_the_card_shows_is_there():
    shown = [name.split(")")[0] for name in (DOCS / "README.md").read_text("utf-8").split("![")[1:]]
    files = [name.split("](")[1] for name in shown]
    assert files and all((DOCS / name).is_file() for name in files)
