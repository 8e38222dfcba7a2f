"""A1111's infotext: as its pictures have it, read back as written, and robust against any text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.library import infotext
from modules.library.infotext import Infotext, parse, quote, unquote

A1111 = """masterpiece, (best quality:1.2), a cat <lora:cat:0.8>
on a mat
Negative prompt: lowres, bad anatomy
worst quality
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1234567890, Size: 512x768, Model hash: \
6ce0161689, Model: v1-5-pruned-emaonly, Denoising strength: 0.7, Clip skip: 2, Hires upscale: 2, \
Hires upscaler: Latent, Lora hashes: "cat: 0123456789ab, dog: ba9876543210", Version: v1.10.1"""


def test_formats_as_a1111_does() -> None:
    parameters = {
        "Steps": 20, "Sampler": "DPM++ 2M", "Schedule type": "Karras", "CFG scale": 7, "Seed": 1234567890,
        "Size": "512x768", "Model hash": "6ce0161689", "Model": "v1-5-pruned-emaonly", "Denoising strength": 0.7,
        "Face restoration": None, "Clip skip": 2, "Hires upscale": 2, "Hires upscaler": "Latent",
        "Lora hashes": "cat: 0123456789ab, dog: ba9876543210", "Version": "v1.10.1",
    }
    prompt = "masterpiece, (best quality:1.2), a cat <lora:cat:0.8>\non a mat"
    assert infotext.format(prompt, "lowres, bad anatomy\nworst quality", parameters) == A1111


def test_parses_what_a1111_writes() -> None:
    result = parse(A1111)
    assert result.prompt == "masterpiece, (best quality:1.2), a cat <lora:cat:0.8>\non a mat"
    assert result.negative_prompt == "lowres, bad anatomy\nworst quality"
    assert result.parameters == {
        "Steps": "20", "Sampler": "DPM++ 2M", "Schedule type": "Karras", "CFG scale": "7", "Seed": "1234567890",
        "Size-1": "512", "Size-2": "768", "Model hash": "6ce0161689", "Model": "v1-5-pruned-emaonly",
        "Denoising strength": "0.7", "Clip skip": "2", "Hires upscale": "2", "Hires upscaler": "Latent",
        "Lora hashes": "cat: 0123456789ab, dog: ba9876543210", "Version": "v1.10.1",
    }


@pytest.mark.parametrize(("text", "expected"), [
    ("", Infotext()),
    ("a cat", Infotext("a cat")),
    ("a cat\nNegative prompt: dog", Infotext("a cat", "dog")),
    ("Negative prompt: dog\nSteps: 1, Seed: 2, Sampler: Euler", Infotext("", "dog", {
        "Steps": "1", "Seed": "2", "Sampler": "Euler"})),
    ("Steps: 1, Seed: 2, Size: 64x64", Infotext("", "", {
        "Steps": "1", "Seed": "2", "Size-1": "64", "Size-2": "64"})),
    # Two parameters are not enough to be told from a prompt with colons.
    ("a: b, scene: night", Infotext("a: b, scene: night")),
    ("a cat\nSteps: 1, Seed: 2", Infotext("a cat\nSteps: 1, Seed: 2")),
    ("  a cat  \n\n  sits \nSteps: 1, Seed: 2, Size: 8x8 ", Infotext("a cat\n\nsits", "", {
        "Steps": "1", "Seed": "2", "Size-1": "8", "Size-2": "8"})),
    ("x\nSteps: 20, Sampler: DPM++ 2M SDE Karras, CFG scale: 7", Infotext("x", "", {
        "Steps": "20", "Sampler": "DPM++ 2M SDE Karras", "CFG scale": "7"})),
    ('x\nSteps: 1, A key: "q, \\"r\\": s\\n\\u00e9", Seed: 2', Infotext("x", "", {
        "Steps": "1", "A key": 'q, "r": s\né', "Seed": "2"})),
    ('x\nSteps: 1, Broken: "never closed, Seed: 2', Infotext("x", "", {
        "Steps": "1", "Broken": '"never closed', "Seed": "2"})),
    ("x\nSteps: 1, Empty: , Seed: 2", Infotext("x", "", {"Steps": "1", "Empty": "", "Seed": "2"})),
    ('x\nSteps: 1, Soft inpainting enabled: True, Hypertile U-Net: True, First pass size: 0x0, TI hashes: "a: b"',
     Infotext("x", "", {"Steps": "1", "Soft inpainting enabled": "True", "Hypertile U-Net": "True",
                        "First pass size-1": "0", "First pass size-2": "0", "TI hashes": "a: b"})),
])
def test_parsing(text: str, expected: Infotext) -> None:
    assert parse(text) == expected


KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9 /\-]{0,20}[A-Za-z0-9]", fullmatch=True)
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=60)
LINES = TEXT.map(lambda text: " ".join(text.split())).filter(lambda text: not text.startswith("Negative prompt:"))


@given(
    prompt=LINES, negative=LINES.filter(bool),
    parameters=st.dictionaries(KEYS, st.one_of(TEXT, st.integers(), st.floats()), min_size=3, max_size=8),
)
@settings(deadline=None, max_examples=300)
def test_every_value_is_read_back(prompt: str, negative: str, parameters: dict) -> None:
    result = parse(infotext.format(prompt, negative, parameters))
    assert (result.prompt, result.negative_prompt) == (prompt, negative)
    assert result.parameters == {key: str(value) for key, value in parameters.items()}


@given(TEXT)
def test_quoting_is_undone(value: str) -> None:
    assert unquote(quote(value)) == value


@given(st.text())
@settings(deadline=None)
def test_any_text_is_parsed(text: str) -> None:
    assert isinstance(parse(text), Infotext)
    assert isinstance(parse(f"{text}: {text}, a: {text}, b: \"{text}"), Infotext)


@pytest.mark.parametrize("unit", ["a", "a:", 'a:"', 'ab:"\\', ",", " ", "\n", '"', "ab: ", 'ab: "x", ', "\\", "ab:\t",
                                  "Negative prompt:\n", "-/ "])
def test_long_texts_are_parsed(unit: str) -> None:
    # A regular expression that backtracks would never come back from these.
    text = unit * (400_000 // len(unit))
    result = parse(text)
    assert bool(result.parameters) == (unit == 'ab: "x", ')


def test_a_key_that_cannot_be_read_back_is_made_readable() -> None:
    text = infotext.format("x", "", {"Steps": 1, "Lora: a, b": 2, "Seed": 3})
    assert parse(text).parameters == {"Steps": "1", "Lora_ a_ b": "2", "Seed": "3"}


def test_novelai() -> None:
    comment = ('{"steps": 28, "sampler": "k_euler_ancestral", "seed": 42, "strength": 0.7, "noise": 0.2, '
               '"scale": 11.0, "uc": "lowres, bad hands"}')
    assert infotext.from_novelai("1girl, {{smile}}", comment, 512, 768) == (
        "1girl, {{smile}}\nNegative prompt: lowres, bad hands\n"
        "Steps: 28, Sampler: Euler a, CFG scale: 11.0, Seed: 42, Size: 512x768, Clip skip: 2, ENSD: 31337")
    for nonsense in ("", "[]", "1", "{", "[" * 100_000):
        assert infotext.from_novelai("x", nonsense, 1, 1) == ""
