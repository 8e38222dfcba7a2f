"""Gradio events as this page uses them: at once, without spinners, and not part of the public API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr


def quietly(event: Callable[..., Any], action: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Connect one event; ``options`` are Gradio's (``inputs``, ``outputs``, ``js``, ``trigger_mode``).

    Values come as the browser sends them: the form checks them, while Gradio would fail with a traceback at every
    number that is still being typed.
    """
    return event(action, queue=False, show_progress="hidden", api_visibility="private", preprocess=False, **options)


def listen(triggers: list[Any], action: Callable[..., Any], **options: Any) -> Any:
    """Connect several events to one action, as ``quietly`` does."""
    return gr.on(triggers, action, queue=False, show_progress="hidden", api_visibility="private", preprocess=False,
                 **options)


def restoring(triggers: list[Any], tab: str, action: Callable[..., Any], outputs: Any) -> None:
    """Fill the controls of a tab with what is stored; until it is there they are hidden.

    Whatever was typed earlier would be overwritten by it, and storing the form earlier would overwrite what is stored.
    """
    # One event for all of them: the page compares every control with every event. Each is answered, so that the page
    # can tell by counting when the last one was.
    asked = listen(triggers, action, outputs=outputs, trigger_mode="multiple",
                   js=f"() => {{ window.darkroom.restoring('{tab}'); return []; }}")
    quietly(asked.then, js=f"() => {{ window.darkroom.restored('{tab}'); return []; }}")
