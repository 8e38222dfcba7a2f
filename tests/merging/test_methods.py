"""Every method against its formula in numpy's float64."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from modules.core.merge import METHODS as INFOS
from modules.merging.methods import METHODS, Operands, dare, similarity, tensor_sum, uniform

ALPHA, BETA = 0.35, 0.6


def values(shape=(12, 10), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def of(tensors, alpha=ALPHA, beta=BETA, **more):
    return Operands(*tensors, alpha, beta, tuple(tensors[0].shape), **more)


def cosines(a, b, unit):
    if unit:
        a, b = a / np.linalg.norm(a, axis=0), b / np.linalg.norm(b, axis=0)
    columns = (a * b).sum(0) / (np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0))
    return (columns + (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())) / 2


def cosine(a, b, c, alpha, beta, unit=False):
    k = np.clip((cosines(a, b, unit) + 0.5) / 1.5 - alpha, 0, 1)
    return b * (1 - k) + a * k


def trained(a, b, c, alpha, beta):
    one, other = np.abs(b - c), np.abs(b - a)
    return a + 1.8 * alpha * np.sign(b - c) * one * other / (one + other)


def smoothed(a, b, c, alpha, beta):
    return a + alpha * ndimage.gaussian_filter(ndimage.median_filter(b - c, size=3), sigma=1)


def similar(a, b, c, alpha, beta):
    s = beta * (a * b / np.maximum(np.abs(a), np.abs(b)) ** 2 + 1) / 2
    return (1 - s) * (a + alpha * (b - c)) + s * ((1 - alpha / 2) * a + alpha * b / 2)


def multiplied(a, b, c, alpha, beta):
    size = np.exp((1 - alpha) * np.log(np.abs(a - c)) + alpha * np.log(np.abs(b - c)))
    return c + np.copysign(size, (1 - beta) * a + beta * b - c)


def arc(a, b, c, alpha, beta):
    angle = np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin((1 - alpha) * angle) * a + np.sin(alpha * angle) * b) / np.sin(angle)


def elected(a, b, c, alpha, beta):
    changes = []
    for one in (a - c, b - c):
        least = np.sort(np.abs(one).ravel())[one.size - round(one.size * beta)]
        changes.append(np.where(np.abs(one) >= least, one, 0))
    sign = np.sign(sum(changes))
    agreeing = [np.where(np.sign(one) == sign, one, 0) for one in changes]
    count = sum((one != 0).astype(int) for one in agreeing)
    return c + alpha * sum(agreeing) / np.maximum(count, 1)


def dropped(a, b, c, alpha, beta):
    kept = uniform(0, a.size, 0).numpy().reshape(a.shape) < beta
    return a + alpha * np.where(kept, (b - c) / beta, 0)


def taken(a, b, c, alpha, beta):
    result = a.copy()
    result[int(12 * beta):int(12 * (alpha + beta))] = b[int(12 * beta):int(12 * (alpha + beta))]
    return result


REFERENCES = {
    "no_interpolation": lambda a, b, c, alpha, beta: a,
    "weighted_sum": lambda a, b, c, alpha, beta: a * (1 - alpha) + b * alpha,
    "add_difference": lambda a, b, c, alpha, beta: a + (b - c) * alpha,
    "tensor_sum": taken,
    "triple_sum": lambda a, b, c, alpha, beta: a * (1 - alpha - beta) + b * alpha + c * beta,
    "sum_twice": lambda a, b, c, alpha, beta: (a * (1 - alpha) + b * alpha) * (1 - beta) + c * beta,
    "train_difference": trained, "smooth_add": smoothed,
    "cosine_a": lambda *of: cosine(*of, unit=True), "cosine_b": cosine,
    "similarity_add_difference": similar, "multiply_difference": multiplied, "slerp": arc, "ties": elected,
    "dare": dropped,
}


def test_every_method_has_a_name_a_function_and_a_reference():
    assert set(INFOS) == set(METHODS) == set(REFERENCES)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(12, 10), (12, 3, 3, 3), (12,)])
def test_a_method_is_its_formula(name, shape):
    tensors = values(shape)
    found = METHODS[name].merge(of(tensors, bounds=(-0.5, 1.0))).numpy()
    wanted = REFERENCES[name](*(one.numpy() for one in tensors), ALPHA, BETA)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.whole])
def test_pieces_give_what_the_whole_gives(name):
    tensors = values()
    whole = METHODS[name].merge(of(tensors)).reshape(-1)
    parts = [METHODS[name].merge(Operands(*(one.reshape(-1)[start:start + 7] for one in tensors), ALPHA, BETA,
                                          (12, 10), start)) for start in range(0, 120, 7)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("alpha, beta", [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.5)])
def test_what_is_said_to_be_an_operand_is_one(name, alpha, beta):
    a, b, c = values()
    same = METHODS[name].same(alpha, beta)
    if same:
        torch.testing.assert_close(METHODS[name].merge(of((a, b, c), alpha, beta)), {"a": a, "b": b}[same])


def test_special_values_are_no_nan():
    zero = torch.zeros(4, 4)
    for name, method in METHODS.items():
        for alpha in (0.0, 0.5, 1.0):
            assert torch.isfinite(method.merge(of((zero, zero, zero), alpha))).all(), name
    assert torch.isfinite(similarity(zero, zero)).all()


def test_tensor_sum_goes_on_with_the_first_row():
    a, b = torch.zeros(10, 2), torch.ones(10, 2)
    assert tensor_sum(of((a, b, a), 0.5, 0.8))[:, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 1, 1]


def test_dare_keeps_its_share_and_its_mean():
    a, b, c = torch.zeros(200, 200), torch.ones(200, 200), torch.zeros(200, 200)
    found = dare(of((a, b, c), 1.0, 0.25))
    assert abs((found != 0).float().mean() - 0.25) < 0.01 and abs(found.mean() - 1.0) < 0.04
    assert not torch.equal(found, dare(of((a, b, c), 1.0, 0.25, seed=1)))
    numbers = uniform(0, 100_000, 7)
    assert abs(numbers.mean() - 0.5) < 0.01 and numbers.min() >= 0.0 and numbers.max() < 1.0
