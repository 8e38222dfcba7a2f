"""Calling plugins: order, blame, and what passes through."""

from __future__ import annotations

from typing import Any

import pytest

from modules.core.errors import Interrupted, InvalidRequest, PluginFailed
from modules.core.plan import Plan
from modules.core.request import Request
from modules.plugin import Context, Plugin, hooks
from modules.plugin.hooks import Active

PLAN = Plan(Request(), (), ())


def active(*plugins: type[Plugin]) -> tuple[Active, ...]:
    return tuple(Active(plugin(Context(None, None, {})), None) for plugin in plugins)  # type: ignore[arg-type]


def named(name: str, **methods: Any) -> type[Plugin]:
    return type(name, (Plugin,), {"id": name, "name": name, **methods})


def test_a_plugin_that_overrides_nothing_changes_nothing() -> None:
    request, plan = Request(), PLAN
    items = active(Plugin)
    assert hooks.expand(items, request) == (request,)
    assert hooks.on_plan(items, plan) is plan
    assert hooks.patches(items, plan, None, ()) == ()  # type: ignore[arg-type]
    assert hooks.wrap_model(items, lambda x: x + 1, plan)(1) == 2
    assert hooks.around(items, request, lambda one: (one, "made")) == (request, "made")


def test_the_first_plugin_is_outermost() -> None:
    def wrapping(letter: str) -> type[Plugin]:
        return named(letter, wrap_model=lambda self, call, plan, params: lambda x: letter + call(x) + letter)
    items = active(wrapping("a"), wrapping("b"))
    assert hooks.wrap_model(items, lambda x: x, PLAN)("-") == "ab-ba"


def test_expansion_multiplies() -> None:
    def twice(self: Plugin, request: Request, params: Any) -> list[Request]:
        return [Request(prompt=request.prompt + letter) for letter in "xy"]
    items = active(named("one", expand=twice), named("two", expand=twice))
    assert [request.prompt for request in hooks.expand(items, Request())] == ["xx", "xy", "yx", "yy"]


def failing(*_: Any) -> Any:
    raise ZeroDivisionError("oops")


@pytest.mark.parametrize(("hook", "run"), [
    ("expand", lambda items: hooks.expand(items, Request())),
    ("around", lambda items: hooks.around(items, Request(), lambda one: one)),
    ("on_plan", lambda items: hooks.on_plan(items, PLAN)),
    ("patches", lambda items: hooks.patches(items, PLAN, None, ())),
    ("wrap_model", lambda items: hooks.wrap_model(items, lambda x: x, PLAN)),
    ("wrap_denoise", lambda items: hooks.wrap_denoise(items, lambda x, sigma: x, PLAN)),
    ("on_step", lambda items: hooks.on_step(items, None)),
    ("on_image", lambda items: hooks.on_image(items, None, PLAN)),
    ("on_result", lambda items: hooks.on_result(items, PLAN)),
])
def test_a_failure_names_the_plugin_and_the_hook(hook: str, run: Any) -> None:
    with pytest.raises(PluginFailed, match=f"'bad' failed in {hook}: ZeroDivisionError: oops"):
        run(active(named("bad", **{hook: failing})))


def test_a_failing_wrapper_is_blamed_for_its_own_calls() -> None:
    items = active(named("bad", wrap_model=lambda self, call, plan, params: failing))
    with pytest.raises(PluginFailed, match="bad"):
        hooks.wrap_model(items, lambda x: x, PLAN)(1)


def test_a_plugin_is_not_blamed_for_what_it_wraps() -> None:
    items = active(named("innocent", wrap_model=lambda self, call, plan, params: lambda x: call(x)),
                   named("other", wrap_model=lambda self, call, plan, params: lambda x: call(x)))
    with pytest.raises(ZeroDivisionError):
        hooks.wrap_model(items, failing, PLAN)(1)
    with pytest.raises(ZeroDivisionError):
        hooks.around(items, Request(), failing)


@pytest.mark.parametrize("error", [Interrupted("stop"), InvalidRequest("no"), MemoryError()])
def test_interruption_errors_for_the_user_and_exhausted_memory_pass_unchanged(error: BaseException) -> None:
    def raising(*_: Any) -> Any:
        raise error
    with pytest.raises(type(error)) as caught:
        hooks.on_plan(active(named("any", on_plan=raising)), PLAN)
    assert caught.value is error
