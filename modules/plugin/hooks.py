"""Calling plugins: in order, each failure named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

from modules.core.errors import DarkroomError, PluginFailed
from modules.core.plan import Plan, Segment
from modules.core.request import Request
from modules.core.result import FinishedPicture
from modules.library.sixteen_bit import DeepImage
from modules.plugin import Plugin, StepState
from modules.plugin.params import param_infos, told
from modules.prompts.tags import Tag


@dataclass(frozen=True)
class Active:
    """A plugin that takes part in a request, with the parameters the request gives it."""

    plugin: Plugin
    params: Any


class _Inner(Exception):
    """Carries an exception of what a plugin wraps past that plugin, so that the plugin is not blamed for it."""


@contextmanager
def named(plugin: Plugin, hook: str) -> Iterator[None]:
    """Turn whatever a plugin raises into ``PluginFailed`` that names it.

    Errors meant for the user pass unchanged, as do interruption and exhausted memory.
    """
    try:
        yield
    except (DarkroomError, MemoryError, _Inner):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise PluginFailed(
            f"The extension {plugin.name or plugin.id!r} failed in {hook}: {type(error).__name__}: {error}",
            "Turn it off in the Extensions tab to go on without it.",
        ) from error


def expand(active: Sequence[Active], request: Request) -> tuple[Request, ...]:
    """Return the requests that ``request`` becomes: itself alone where no plugin expands it."""
    requests: tuple[Request, ...] = (request,)
    for item in active:
        with named(item.plugin, "expand"):
            requests = tuple(
                child for one in requests for child in (item.plugin.expand(one, item.params) or (one,))
            )
    return requests


def around(active: Sequence[Active], request: Request, generate: Callable[[Request], Any]) -> Any:
    """Run ``generate`` inside every plugin's ``around``, the first plugin outermost."""
    def enclose(inner: Callable[[Request], Any], item: Active) -> Callable[[Request], Any]:
        def run(one: Request) -> Any:
            with named(item.plugin, "around"):
                return item.plugin.around(one, item.params, inner)
        return run
    return _outermost(reduce(enclose, reversed(active), _innermost(generate)))(request)


def on_plan(active: Sequence[Active], plan: Plan) -> Plan:
    """Let each plugin change the plan in turn."""
    for item in active:
        with named(item.plugin, "on_plan"):
            plan = item.plugin.on_plan(plan, item.params) or plan
    return plan


def infotext(active: Sequence[Active]) -> dict[str, str]:
    """Return the infotext entries of parameters that made a difference (``told``)."""
    entries: dict[str, str] = {}
    for item in active:
        infos = param_infos(type(item.params))
        entries |= {
            infos[name].infotext: str(value) for name, value in told(item.params).items() if infos[name].infotext
        }
    return entries


def depth(active: Sequence[Active], image: Any) -> Any:
    """Return the depth map of the first plugin that makes one of ``image``, None for none."""
    for item in active:
        with named(item.plugin, "depth"):
            found = item.plugin.depth(image, item.params)
        if found is not None:
            return found
    return None


def postprocess(active: Sequence[Active], image: Any) -> tuple[Any, ...] | None:
    """Return what an enlarged picture becomes, one plugin after the other; None where all leave it as it is.

    A picture of 16 bits is shown in 8 to plugins that do not say that they know more.
    """
    images, changed = (image,), False
    for item in active:
        with named(item.plugin, "postprocess"):
            made = [item.plugin.postprocess(_as_deep(item.plugin, one), item.params) for one in images]
        changed = changed or any(one is not None for one in made)
        images = tuple(part for one, before in zip(made, images, strict=True)
                       for part in ([before] if one is None else one))
    return images if changed else None


def _as_deep(plugin: Any, image: Any) -> Any:
    return image.shallow() if isinstance(image, DeepImage) and not plugin.sixteen_bits else image


def patches(active: Sequence[Active], plan: Plan, segment: Segment, tags: Sequence[Tag]) -> tuple[Any, ...]:
    """Collect patches for a segment; each plugin gets the tags that it declares."""
    found: list[Any] = []
    for item in active:
        own = tuple(tag for tag in tags if tag.name in item.plugin.tags)
        with named(item.plugin, "patches"):
            found.extend(item.plugin.patches(plan, segment, own, item.params))
    return tuple(found)


def wrap_model(active: Sequence[Active], call: Any, plan: Plan) -> Any:
    """Wrap the denoiser's call by every plugin, the first outermost."""
    return _wrap(active, call, plan, "wrap_model")


def wrap_denoise(active: Sequence[Active], denoise: Any, plan: Plan) -> Any:
    """Wrap the guided denoiser by every plugin, the first outermost."""
    return _wrap(active, denoise, plan, "wrap_denoise")


def on_step(active: Sequence[Active], state: StepState) -> None:
    """Show the state after a model call to every plugin."""
    for item in active:
        with named(item.plugin, "on_step"):
            item.plugin.on_step(state, item.params)


def on_image(active: Sequence[Active], picture: FinishedPicture, plan: Plan) -> FinishedPicture:
    """Let each plugin change a decoded picture in turn."""
    for item in active:
        with named(item.plugin, "on_image"):
            picture = item.plugin.on_image(picture, plan, item.params) or picture
    return picture


def on_result(active: Sequence[Active], plan: Plan) -> None:
    """Tell every plugin that all pictures are saved."""
    for item in active:
        with named(item.plugin, "on_result"):
            item.plugin.on_result(plan, item.params)


def _wrap(active: Sequence[Active], call: Any, plan: Plan, hook: str) -> Any:
    wrapped = _innermost(call)
    for item in reversed(active):
        with named(item.plugin, hook):
            outer = getattr(item.plugin, hook)(wrapped, plan, item.params)
        if outer is not None:
            wrapped = _named_call(item.plugin, hook, outer)
    return _outermost(wrapped)


def _named_call(plugin: Plugin, hook: str, call: Any) -> Any:
    def run(*arguments: Any) -> Any:
        with named(plugin, hook):
            return call(*arguments)
    return run


def _innermost(call: Any) -> Any:
    def run(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (DarkroomError, MemoryError):
            raise
        except Exception as error:
            raise _Inner from error
    return run


def _outermost(call: Any) -> Any:
    def run(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except _Inner as carrier:
            assert carrier.__cause__ is not None
            raise carrier.__cause__ from None
    return run
