import numpy as np
import pytest
import torch

from modules.sampling.noise import Stream, brownian_noise, picture_noise, sequential_noise, slerp
from modules.sampling.philox import philox_normal

SHAPE = (4, 6, 10)
SOURCES = ["CPU", "NV", "GPU"]


def torch_noise(seed, shape=SHAPE, skip=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(skip):
        torch.randn(shape, generator=generator)
    return torch.randn(shape, generator=generator)


def test_cpu_noise_is_torchs():
    noise = picture_noise(SHAPE, [5, 2**64 - 1])
    assert noise.dtype == torch.float32 and noise.shape == (2, *SHAPE)
    assert torch.equal(noise, torch.stack([torch_noise(5), torch_noise(2**64 - 1)]))


def test_nv_noise_is_philox_and_gpu_noise_is_it_where_there_is_none():
    expected = torch.from_numpy(philox_normal(SHAPE, 5, 0))
    assert torch.equal(picture_noise(SHAPE, [5], source="NV")[0], expected)
    assert torch.equal(picture_noise(SHAPE, [5], source="GPU")[0], expected)


@pytest.mark.parametrize("source", SOURCES)
def test_noise_in_a_batch_is_that_of_the_picture_alone(source):
    seeds, subseeds = [3, 4, 5], [30, 40, 50]
    options = {"subseed_strength": 0.3, "seed_resize_from": (4, 12), "source": source}
    batch = picture_noise(SHAPE, seeds, subseeds=subseeds, **options)
    later = sequential_noise(SHAPE, seeds, source=source)
    paths = brownian_noise(SHAPE, seeds, (0.1, 10.0), source=source)
    draws = [later(2, 1), later(1, 0), paths(4.0, 2.0), paths(2.0, 0.5)]
    for index, (seed, subseed) in enumerate(zip(seeds, subseeds, strict=True)):
        assert torch.equal(batch[index], picture_noise(SHAPE, [seed], subseeds=[subseed], **options)[0])
        alone = sequential_noise(SHAPE, [seed], source=source)
        path = brownian_noise(SHAPE, [seed], (0.1, 10.0), source=source)
        singles = [alone(2, 1), alone(1, 0), path(4.0, 2.0), path(2.0, 0.5)]
        for together, single in zip(draws, singles, strict=True):
            assert torch.equal(together[index], single[0])


def test_later_noise_continues_the_stream_of_the_picture():
    noise = sequential_noise(SHAPE, [5])
    assert torch.equal(noise(2, 1)[0], torch_noise(5, skip=1))
    assert torch.equal(noise(1, 0)[0], torch_noise(5, skip=2))
    philox = sequential_noise(SHAPE, [5], source="NV")
    assert torch.equal(philox(2, 1)[0], torch.from_numpy(philox_normal(SHAPE, 5, 1)))


@pytest.mark.parametrize("source", SOURCES)
def test_the_eta_noise_seed_delta_begins_a_stream_of_its_own(source):
    noise = sequential_noise(SHAPE, [5], source=source, seed_delta=31337)
    assert torch.equal(noise(2, 1), picture_noise(SHAPE, [5 + 31337], source=source))


def test_seeds_wrap_at_64_bits():
    noise = sequential_noise(SHAPE, [2**64 - 1], seed_delta=31337)
    assert torch.equal(noise(1, 0)[0], torch_noise(31336))
    assert Stream(2**64 + 5, "NV").normal((3,)).tolist() == Stream(5, "NV").normal((3,)).tolist()


def test_a_variation_is_a_spherical_interpolation_by_columns():
    low, high = torch_noise(1).double(), torch_noise(2).double()
    cosine = np.einsum("chw,chw->cw", low, high) / (np.linalg.norm(low, axis=1) * np.linalg.norm(high, axis=1))
    omega = np.arccos(cosine)
    weights = [np.sin(share * omega) / np.sin(omega) for share in (0.75, 0.25)]
    expected = weights[0][:, None] * low.numpy() + weights[1][:, None] * high.numpy()
    noise = picture_noise(SHAPE, [1], subseeds=[2], subseed_strength=0.25)[0]
    np.testing.assert_allclose(noise, expected, rtol=1e-4, atol=1e-5)


def test_the_ends_of_a_variation_are_the_two_pictures():
    torch.testing.assert_close(picture_noise(SHAPE, [1], subseeds=[2], subseed_strength=1.0)[0], torch_noise(2))
    assert torch.equal(picture_noise(SHAPE, [1], subseeds=[2])[0], torch_noise(1))
    missing = picture_noise(SHAPE, [1], subseed_strength=1.0)[0]
    torch.testing.assert_close(missing, torch_noise(0))


def test_collinear_noise_is_mixed_linearly_the_other_way_round():
    low = torch_noise(1)
    assert torch.equal(slerp(0.25, low, low * 2), low * 0.25 + low * 2 * 0.75)


@pytest.mark.parametrize(("size", "target", "origin"), [
    ((4, 6), (slice(1, 5), slice(2, 8)), (slice(0, 4), slice(0, 6))),
    ((10, 14), (slice(0, 6), slice(0, 10)), (slice(2, 8), slice(2, 12))),
    ((4, 14), (slice(1, 5), slice(0, 10)), (slice(0, 4), slice(2, 12))),
    ((5, 9), (slice(0, 5), slice(0, 9)), (slice(0, 5), slice(0, 9))),
    ((7, 11), (slice(0, 5), slice(0, 9)), (slice(1, 6), slice(1, 10))),
])
def test_a_resized_seed_keeps_the_middle(size, target, origin):
    """Odd differences are rounded down, so one that is too large by one loses two rows."""
    noise = picture_noise(SHAPE, [9], seed_resize_from=size)[0]
    expected = torch_noise(9).clone()
    expected[:, target[0], target[1]] = torch_noise(9, (4, *size))[:, origin[0], origin[1]]
    assert torch.equal(noise, expected)


@pytest.mark.parametrize("size", [None, (0, 8), (-1, -1), SHAPE[1:]])
def test_no_resize_is_the_plain_noise(size):
    assert torch.equal(picture_noise(SHAPE, [9], seed_resize_from=size)[0], torch_noise(9))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_brownian_noise_is_k_diffusions():
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    low, high = 0.0291675, 14.614642
    theirs = BrownianTreeNoiseSampler(torch.zeros(2, *SHAPE), *torch.tensor([low, high]).tolist(), seed=[5, 6])
    ours = brownian_noise(SHAPE, [5, 6], (low, high))
    for sigma, sigma_next in ((high, 9.0), (9.0, 3.25), (3.25, 2.1), (0.2, low)):
        expected = theirs(*torch.tensor([sigma, sigma_next]))
        torch.testing.assert_close(ours(sigma, sigma_next), expected, rtol=1e-6, atol=1e-6)


def test_brownian_noise_follows_its_source():
    cpu, nv = (brownian_noise(SHAPE, [5], (0.1, 10.0), source=source)(4.0, 2.0) for source in ("CPU", "NV"))
    assert not torch.equal(cpu, nv)
    assert nv.std().item() == pytest.approx(1, abs=0.15)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")
def test_nv_noise_is_what_the_card_makes():
    shape = (4, 64, 64)
    card = picture_noise(shape, [1234], source="GPU", device="cuda").cpu()
    torch.testing.assert_close(card, picture_noise(shape, [1234], source="NV"), rtol=1e-4, atol=1e-5)
