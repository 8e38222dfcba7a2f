import dataclasses

import pytest

from modules.core import codec
from modules.core.errors import InvalidRequest
from modules.core.extras import Extras, Source, check_extras, entries, target_size

ONE = Source("a" * 32, "cat.png", "a cat")


def test_it_goes_through_json_and_back():
    extras = Extras((ONE,), upscaler_1="Lanczos", upscaling_resize=2.5)
    assert codec.decode(Extras, codec.encode(extras)) == extras


@pytest.mark.parametrize("change, words", [
    ({"upscaling_resize": 0}, "upscaling_resize"), ({"upscaling_resize": 1000}, "upscaling_resize"),
    ({"upscaling_resize": float("nan")}, "upscaling_resize"), ({"resize_mode": 2}, "resize_mode"),
    ({"upscaling_resize_w": 0}, "upscaling_resize_w"), ({"upscaling_resize_h": 40_000}, "upscaling_resize_h"),
    ({"extras_upscaler_2_visibility": 1.5}, "visibility"), ({"gfpgan_visibility": -1}, "gfpgan_visibility"),
    ({"codeformer_visibility": 1.1}, "codeformer_visibility"), ({"codeformer_weight": 2}, "codeformer_weight"),
    ({"sources": ()}, "no picture"),
    ({"sources": (Source("../x"),)}, "not the id"), ({"sources": (ONE,) * 10_001}, "At most"),
])
def test_what_is_out_of_range_is_refused_by_name(change, words):
    with pytest.raises(InvalidRequest, match=words):
        check_extras(dataclasses.replace(Extras((ONE,)), **change))
    assert check_extras(Extras((ONE,)))


@pytest.mark.parametrize("extras, size", [
    (Extras(upscaling_resize=2), (200, 100)), (Extras(upscaling_resize=0.5), (50, 25)),
    (Extras(upscaling_resize=1.005), (100, 50)), (Extras(resize_mode=1), (1024, 512)),
    (Extras(resize_mode=1, upscaling_resize_w=300, upscaling_resize_h=100), (300, 150)),
    (Extras(resize_mode=1, upscaling_resize_w=301, upscaling_resize_h=100, upscaling_crop=False), (301, 150)),
])
def test_how_large_a_picture_becomes(extras, size):
    assert target_size(extras, 100, 50) == size


@pytest.mark.parametrize("extras", [Extras(upscaling_resize=16), Extras(resize_mode=1, upscaling_resize_w=32_000)])
def test_what_would_be_too_large_is_refused_with_the_size(extras):
    with pytest.raises(InvalidRequest, match="4000x3000 would become .*too large"):
        target_size(extras, 4000, 3000)


def test_the_infotext_has_a1111s_entries():
    plain = Extras(upscaler_1="Lanczos", upscaler_2="Nearest")
    assert entries(plain) == {"Postprocess upscale by": "4", "Postprocess upscaler": "Lanczos"}
    both = dataclasses.replace(plain, resize_mode=1, extras_upscaler_2_visibility=0.25)
    assert entries(both) == {
        "Postprocess upscale to": "512x512", "Postprocess crop to": "512x512", "Postprocess upscaler": "Lanczos",
        "Postprocess upscaler 2": "Nearest", "Postprocess upscaler 2 visibility": "0.25"}
    assert "Postprocess crop to" not in entries(dataclasses.replace(both, upscaling_crop=False))
    assert entries(Extras(codeformer_weight=0.5)) == {}
    faces = Extras(gfpgan_visibility=0.12345, codeformer_visibility=1.0, codeformer_weight=0.7)
    assert entries(faces) == {"GFPGAN visibility": "0.123", "CodeFormer visibility": "1", "CodeFormer weight": "0.7"}
    assert list(entries(dataclasses.replace(faces, upscaler_1="Lanczos")))[-4:] == [
        "Postprocess upscaler", "GFPGAN visibility", "CodeFormer visibility", "CodeFormer weight"]
    assert list(faces.restorers.items()) == [("GFPGAN", 0.12345), ("CodeFormer", 1.0)]
