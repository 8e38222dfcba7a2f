import logging

import pytest
import torch

from modules.training import checkpoint, loop
from tests.training.conftest import loop_config

CPU = torch.device("cpu")


class Line:
    """A stage that fits one number to noise drawn for each step."""

    def __init__(self):
        self.weight = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.weight.weight)
        self.optimizer = loop.adam([{"params": list(self.weight.parameters())}], loop_config())
        self.seen, self.sampled = [], []

    def step(self, number):
        source = loop.generator(CPU, 0, "line", number)
        self.optimizer.zero_grad()
        loss = (self.weight(torch.rand(4, 1, generator=source)) - 1).square().mean()
        loss.backward()
        self.optimizer.step()
        self.seen.append(number)
        return {"loss": loss.detach()}

    def sample(self, number):
        self.sampled.append(number)

    def state(self):
        return {"model": self.weight.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state):
        self.weight.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


class Clock:
    """One second passes with every look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_the_rate_warms_up_stays_and_decays():
    config = loop_config(steps=100, lr=1.0, warmup=10, decay=0.5)
    rates = [loop.rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:51] == [1.0] * 42
    assert rates[75] == pytest.approx(0.5) and rates[99] == pytest.approx(0.02)


def test_generators_repeat_and_differ_by_each_part():
    draws = {
        key: torch.rand(1, generator=loop.generator(CPU, *key)).item()
        for key in [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0)]
    }
    assert len(set(draws.values())) == 4
    assert draws[0, "a", 0] == torch.rand(1, generator=loop.generator(CPU, 0, "a", 0)).item()


def test_a_run_stops_in_time_saves_and_resumes_bit_for_bit(tmp_path):
    config = loop_config(steps=9, sample_every=4)
    whole = Line()
    assert loop.run(whole, config, tmp_path / "whole")
    first = Line()
    assert not loop.run(first, config, tmp_path / "parts", loop.Limits(seconds=6), Clock())
    assert 0 < len(first.seen) < 9
    second = Line()
    assert loop.run(second, config, tmp_path / "parts")
    assert first.seen + second.seen == whole.seen == list(range(9))
    assert torch.equal(second.weight.weight, whole.weight.weight)
    assert whole.sampled == [4, 8]
    assert checkpoint.newest(tmp_path / "parts")["step"] == 9


def test_a_finished_run_does_nothing_more(tmp_path):
    config = loop_config(steps=2)
    loop.run(Line(), config, tmp_path)
    again = Line()
    assert loop.run(again, config, tmp_path) and again.seen == []


def test_a_stop_file_ends_a_run_after_the_step(tmp_path):
    stop = tmp_path / "stop"
    stop.touch()
    stage = Line()
    assert not loop.run(stage, loop_config(steps=5), tmp_path / "run", loop.Limits(stop=stop))
    assert stage.seen == [0]


def test_checkpoints_are_as_far_apart_as_asked(tmp_path, monkeypatch):
    saved = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, state: saved.append(step) or save(folder, step, state))
    loop.run(Line(), loop_config(steps=12, checkpoint_seconds=9.0, log_every=100), tmp_path, clock=Clock())
    assert saved[-1] == 12 and 1 < len(saved) < 6


def test_progress_is_logged_with_the_time_left(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger=loop.logger.name):
        loop.run(Line(), loop_config(steps=4, log_every=2), tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("2/4  loss ") and lines[0].endswith("left") and lines[1].startswith("4/4")
    assert "1:02:05 left" in loop.describe(0, 3725, 1.0, {})


def test_the_average_follows_its_formula_and_is_lent():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 1.0)
    average = loop.Average(module, 0.5)
    torch.nn.init.constant_(module.weight, 3.0)
    average.update(module, 0)  # warming up: decay (1 + 0) / (10 + 0)
    assert average.weights["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 3)
    average.update(module, 1000)
    assert average.weights["weight"].item() == pytest.approx(0.5 * 2.8 + 0.5 * 3)
    with average.lent(module):
        assert module.weight.item() == pytest.approx(2.9) and not module.training
    assert module.weight.item() == 3.0 and module.training


def test_group_scales_multiply_the_rate():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameters[0]]}, {"params": [parameters[1]], "scale": 0.5}]
    optimizer = loop.adam(groups, loop_config())
    loop.apply_rate(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.1]


def test_half_precision_is_only_where_asked():
    with loop.autocast(CPU, "bf16"):
        assert torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.bfloat16
    with loop.autocast(CPU, "fp32"):
        assert torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.float32
