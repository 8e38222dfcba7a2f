import pytest

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.imaging.upscalers import UPSCALERS, find_upscaler


def test_the_latent_modes_are_those_of_a1111_and_come_first():
    assert UPSCALERS[:6] == (
        "Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic antialiased)", "Latent (nearest)",
        "Latent (nearest-exact)")
    assert Request().hr_upscaler == UPSCALERS[0] and "Lanczos" in UPSCALERS and len(set(UPSCALERS)) == len(UPSCALERS)


def test_names_are_found_in_any_case():
    assert [find_upscaler(name.upper()) for name in UPSCALERS] == list(UPSCALERS)
    assert find_upscaler(" latent  (bicubic) ") == "Latent (bicubic)"


@pytest.mark.parametrize(("name", "hint"), [("Lanczoss", "Lanczos"), ("latent bicubic", "Latent (bicubic)"),
                                            ("R-ESRGAN 4x+", "Nearest")])
def test_an_unknown_name_is_refused_with_near_ones(name, hint):
    with pytest.raises(InvalidRequest) as caught:
        find_upscaler(name)
    assert name in caught.value.message and hint in caught.value.hint
