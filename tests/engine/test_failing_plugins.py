"""A plugin that raises, in each hook: the job names it, and the next picture is the plain one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from modules.core.errors import PluginFailed
from modules.host.discover import Found
from modules.host.registry import Host
from modules.plugin import Asked, Context, NoParams, Plugin, Route, hooks
from modules.plugin.hooks import Active
from modules.sampling.samplers import SAMPLERS
from tests.engine.conftest import REQUEST, Recorder

IN_THE_ENGINE = ("around", "on_plan", "patches", "wrap_model", "wrap_denoise", "on_step", "on_image", "on_result")
CONTEXT = Context(Path(), Path(), {})
SMALL = dataclasses.replace(REQUEST, steps=1)


def failing(hook: str) -> Plugin:
    def fail(self, *arguments):
        raise ValueError("nothing works")
    return type("Bad", (Plugin,), {"id": "bad", "name": "Bad one", hook: fail})(CONTEXT)


class Late(Plugin):
    """Raises inside what it wraps, when weights and words have long been changed."""

    id, name = "bad", "Bad one"

    def patches(self, plan, segment, tags, params):
        from modules.plugin import Embedding, WeightDelta

        table = "embeddings.token_embedding.weight"
        return [WeightDelta("text_encoder", table, "bad", 1.0, lambda weight: weight),
                Embedding("text_encoder", "cat", "bad", 1.0, __import__("torch").ones(1, 32))]

    def wrap_model(self, call, plan, params):
        def fail(inputs):
            raise ValueError("nothing works")
        return fail


def image(engine, active=()):
    watch = Recorder()
    engine.generate(SMALL, active, watch)
    return np.asarray(watch.pictures[0].image)


@pytest.mark.parametrize("plugin", [*map(failing, IN_THE_ENGINE), Late(CONTEXT)], ids=[*IN_THE_ENGINE, "late"])
def test_it_is_named_and_the_next_picture_is_right(engine, library, plugin):
    plain = image(engine)
    with pytest.raises(PluginFailed, match=r"'Bad one' failed in \w+: ValueError: nothing works"):
        image(engine, (Active(plugin, NoParams()),))
    assert np.array_equal(image(engine), plain)


def test_expand_is_named():
    with pytest.raises(PluginFailed, match="'Bad one' failed in expand"):
        hooks.expand((Active(failing("expand"), NoParams()),), SMALL)


def test_in_the_pages_process_others_go_on(caplog):
    class Good(Plugin):
        id = "good"

        def words(self, variant):
            return {"good": 2}

    for hook in ("words", "routes", "tabs", "upscalers", "samplers", "on_close"):
        host = Host(tuple(Found(one.id, Path(), one) for one in (failing(hook), Good(CONTEXT))))
        assert host.words(None) == {"good": 2} and host.routes() == () and host.tabs() == ()
        assert not host.upscalers() and host.samplers() == SAMPLERS
        host.close()
        assert f"'bad' failed in {hook}" in caplog.text
        caplog.clear()


def test_a_route_that_raises_names_its_plugin():
    plugin = failing("answer")
    plugin.routes = lambda: (Route("/bad", plugin.answer),)
    [route] = Host((Found("bad", Path(), plugin),)).routes()
    with pytest.raises(PluginFailed, match="'Bad one' failed in the route /bad"):
        route.answer(Asked())
