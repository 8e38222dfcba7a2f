import numpy as np
import pytest

from modules.sampling.philox import philox4x32, philox_normal

# Known answers of the authors' library (Random123, kat_vectors: philox4x32, 10 rounds).
FULL, PI = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((FULL,) * 4, (FULL, FULL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "block"), KNOWN)
def test_known_answers(counter, key, block):
    columns = np.array([counter, (1, 2, 3, 4)], dtype=np.uint32).T
    assert tuple(philox4x32(columns, key)[:, 0].tolist()) == block


def test_torch_on_an_nvidia_card_with_seed_0():
    """torch.manual_seed(0); torch.randn(12, device="cuda")."""
    expected = [-0.92466, -0.42534, -2.64384, 0.14518, -0.12086, -0.57972, -0.62285, -0.32838, -1.07454, -0.36314,
                -1.67105, 2.26550]
    np.testing.assert_allclose(philox_normal((3, 4), 0, 0).ravel(), expected, atol=1.1e-5)


def test_numbers_are_normal_and_streams_differ():
    numbers = philox_normal((200, 500), 2**63 + 5, 0)
    assert numbers.dtype == np.float32 and numbers.shape == (200, 500)
    assert abs(numbers.mean()) < 0.015 and abs(numbers.std() - 1) < 0.01
    others = [philox_normal((200, 500), 2**63 + 5, 1), philox_normal((200, 500), 5, 0)]
    for other in others:
        assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < 0.015
