"""Patterns of names: A1111's tokens, and no way out of the folder."""

import hashlib
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.library.patterns import Facts, cleaned, expand, safe_path, sanitised, shortened

FACTS = Facts(
    seed=42, now=datetime(2024, 3, 9, 17, 5, 30, tzinfo=ZoneInfo("UTC")), prompt="A cat, (red:1.2) on a mat: 5/6?",
    negative_prompt="dog", prompt_no_styles="A cat", styles=("photo", "film"), seeds=(40, 41, 42, 43), width=512,
    height=768, steps=20, guidance_scale=7.0, sampler="DPM++ 2M", schedule="Karras", model_name="v1-5", vae="mse",
    model_hash="6ce0161689", batch_number=2, batch_size=4, generation_number=3, pictures=8, clip_skip=2,
    denoising=0.7, user="anna", job_timestamp="20240309170000", basename="input", image_hash=lambda: "ab" * 32,
)
SINGLE = Facts(seed=1, now=FACTS.now)


@pytest.mark.parametrize(("pattern", "expected"), [
    ("[seed]", "42"), ("[seed_first]-[seed_last]", "40-43"), ("[steps]_[cfg]", "20_7"), ("[width]x[height]", "512x768"),
    ("[styles]", "photo, film"), ("[sampler]", "DPM++ 2M"), ("[sampler_scheduler]", "DPM++ 2M Karras"),
    ("[scheduler]", "Karras"), ("[model_hash]", "6ce0161689"), ("[model_name]", "v1-5"), ("[date]", "2024-03-09"),
    ("[datetime]", "20240309170530"), ("[datetime<%Y.%m>]", "2024.03"), ("[datetime<%H_%M><Asia/Tokyo>]", "02_05"),
    ("[datetime<%H><Nowhere/Land>]", "20240309170530"), ("[datetime<%H:%M/%S>]", "17_05_30"),
    ("[job_timestamp]", "20240309170000"), ("[prompt]", "A_cat,_(red_1.2)_on_a_mat__5_6_"),
    ("[prompt_spaces]", "A cat, (red_1.2) on a mat_ 5_6_"), ("[prompt_no_styles]", "A cat"),
    ("[prompt_words]", "A cat red 1 2 on a mat"),
    ("[prompt_hash]", hashlib.sha256(FACTS.prompt.encode()).hexdigest()[:8]),
    ("[negative_prompt_hash<4>]", hashlib.sha256(b"dog").hexdigest()[:4]),
    ("[full_prompt_hash<12>]", hashlib.sha256(f"{FACTS.prompt} dog".encode()).hexdigest()[:12]),
    ("[batch_number]of[batch_size]", "2of4"), ("[generation_number]", "3"),
    ("[hasprompt<cat|no><dog|nodog>]", "catnodog"),
    ("[clip_skip]", "2"), ("[denoising]", "0.7"), ("[user]", "anna"), ("[vae_filename]", "mse"), ("a[none]b", "ab"),
    ("[basename]", "input"), ("[image_hash<6>]", "ababab"), ("[image_hash]", "ab" * 32), ("[SEED]", "42"),
    ("[unknown] x", "[unknown] x"), ("plain", "plain"), ("a[b", "a[b"), ("a]b", "a]b"), ("[[seed]]", "[42]"), ("", ""),
    ("[]", "[]"),
])
def test_tokens(pattern: str, expected: str) -> None:
    assert expand(pattern, FACTS) == expected


def test_tokens_without_anything_to_say() -> None:
    assert expand("[seed]-b[batch_number]-g[generation_number]-d[denoising].", SINGLE) == "1."
    assert expand("[seed_first] [seed_last] [styles] [prompt_words]", SINGLE) == "1 1 None empty"


@pytest.mark.parametrize(("text", "expected"), [
    ("../../etc", ("etc",)), ("/etc/passwd", ("etc", "passwd")), ("..", ()), (".", ()), ("a/../b", ("a", "b")),
    ("a//b/", ("a", "b")), ("C:\\Windows\\x", ("C_", "Windows", "x")), ("~/x", ("~", "x")), ("\0", ("_",)),
    ("con/NUL.txt/aux", ("_con", "_NUL.txt", "_aux")), (" .. /x", ("x",)), ("", ()), ("a. /b", ("a", "b")),
])
def test_safe_paths(text: str, expected: tuple) -> None:
    assert safe_path(text) == expected


TEXTS = st.text(st.sampled_from("./\\~:*?<>|\"#[]% \0\nacé猫😀\u202e") | st.characters(), max_size=300)


@given(pattern=TEXTS, prompt=TEXTS, model=TEXTS)
def test_no_text_leads_out_of_the_folder(pattern: str, prompt: str, model: str) -> None:
    facts = Facts(seed=1, now=FACTS.now, prompt=prompt, model_name=model, user=model, styles=(prompt,))
    for text in (pattern, f"[prompt]/{pattern}[model_name]", f"[styles]/[user]\\[prompt_spaces]{pattern}"):
        parts = safe_path(expand(text, facts))
        base = Path("/outputs")
        assert base.joinpath(*parts).parts == (*base.parts, *parts)
        assert not {"", ".", ".."} & set(parts)
        assert all(len(part.encode("utf-8", "surrogatepass")) <= 255 for part in parts)
        assert not PurePosixPath(*parts).is_absolute() and not PureWindowsPath(*parts).drive


@given(prompt=TEXTS)
def test_a_token_is_one_part(prompt: str) -> None:
    facts = Facts(seed=1, now=FACTS.now, prompt=prompt, prompt_no_styles=prompt, styles=(prompt,), model_name=prompt)
    for token in ("prompt", "prompt_spaces", "prompt_words", "prompt_no_styles", "styles", "model_name"):
        assert len(safe_path(expand(f"[{token}]", facts))) <= 1


def test_lengths() -> None:
    assert len(sanitised("x" * 1000)) == 128
    assert shortened("猫" * 100, 100) == "猫" * 33
    assert cleaned("a/b:c\x00d") == "a_b_c_d"
