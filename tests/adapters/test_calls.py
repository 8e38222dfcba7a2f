"""What tags ask for, as A1111's users write them."""

from __future__ import annotations

from typing import Any

import pytest

from modules.adapters.calls import Call, read_call
from modules.core.errors import InvalidRequest
from modules.prompts.tags import extract


def read(text: str) -> Call:
    return read_call(extract(text)[1][0])


@pytest.mark.parametrize(("text", "text_encoder", "denoiser", "rank"), [
    ("<lora:a>", 1, 1, None), ("<lora:a:0.5>", 0.5, 0.5, None), ("<lora:a:0.5:0.8>", 0.5, 0.8, None),
    ("<lora:a:0.5:0.8:4>", 0.5, 0.8, 4), ("<lora:a:te=0:unet=1.5>", 0, 1.5, None), ("<lora:a:-1>", -1, -1, None),
    ("<lora:a:0.5:unet=0>", 0.5, 0, None), ("<lora:a:1:dyn=8>", 1, 1, 8), ("<lyco:a:0.7>", 0.7, 0.7, None),
])
def test_weights(text: str, text_encoder: float, denoiser: float, rank: Any) -> None:
    call = read(text)
    assert (call.name, call.text_encoder, call.denoiser, call.rank) == ("a", text_encoder, denoiser, rank)
    assert call.blocks == {} and call.in_force(0) and call.in_force(99)


def test_steps() -> None:
    call = read("<lora:a:1:start=3:stop=7>")
    assert [step for step in range(10) if call.in_force(step)] == [3, 4, 5, 6]
    assert call.steps_end(5) == 5 and call.steps_end(20) == 7


def test_blocks() -> None:
    seventeen = read("<lora:a:1:lbw=0.5,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0.25>").blocks
    assert (seventeen["BASE"], seventeen["M00"], seventeen["OUT11"], len(seventeen)) == (0.5, 1, 0.25, 17)
    assert read("<lora:a:1:lbw=outall>").blocks["OUT03"] == 1 and read("<lora:a:1:lbw=outall>").blocks["IN01"] == 0
    assert [name for name, value in read("<lora:a:1:lbw=INS>").blocks.items() if value] == ["BASE", "IN01", "IN02"]
    for name, left_out in (("ALL", set()), ("INALL", {"M", "O"}), ("OUTALL", {"M", "I"})):
        found = read(f"<lora:a:1:lbw={name}>").blocks
        assert {block[0] for block, value in found.items() if not value} == left_out and len(found) == 26
    for count, name in ((12, "OUT05"), (20, "OUT08"), (26, "OUT11")):
        assert list(read(f"<lora:a:1:lbw={','.join(['1'] * count)}>").blocks)[-1] == name


@pytest.mark.parametrize(("text", "message"), [
    ("<lora:a:x>", "no number"), ("<lora:a:1e9>", "out of range"), ("<lora:a:nan>", "out of range"),
    ("<lora:a:1:1:x>", "no whole number"), ("<lora:a:1:dyn=0>", "less than 1"), ("<lora:a:1:lbw=1,2>", "2 values"),
    ("<lora:a:1:lbw=NO>", "1 values"), ("<lora:a:1:speed=2>", "speed is unknown"), ("<lora: :1>", "understood"),
    ("<lora:a:1:2:3:4>", "understood"), ("<lora:a:start=-1>", "less than 0"),
])
def test_what_cannot_be_understood_is_said(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(text)
