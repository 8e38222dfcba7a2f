"""The public extension API: everything an extension imports comes from here.

An extension is a folder with ``plugin.py`` that defines one subclass of ``Plugin``. Its methods are listed below in
the order in which they happen; each returns its argument changed, or None for "unchanged". They run in the engine's
process, except ``expand``, ``words``, ``routes``, ``tabs``, ``axes``, ``samplers``, the names of ``upscalers`` and
what is declared as data, which the page's process reads: keep imports of torch and other large libraries inside the
methods that need them. An exception fails the job and names the plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from modules.core.axes import Axis
from modules.core.errors import DarkroomError, InvalidModel, InvalidRequest, NotFound
from modules.core.guidance import Guidance, Mimicry, Perturbation, Projection, Thresholding, ZeroStar
from modules.core.plan import Bridge, ModelRef, Pass, Picture, Plan, Segment, SoftBlend, Start
from modules.core.request import Request
from modules.core.result import FinishedPicture
from modules.core.settings import Settings
from modules.families.base import ModelInput, Variant
from modules.families.places import Place
from modules.imaging.resize import Upscaler
from modules.library.headers import read_outline
from modules.plugin.files import (
    OncePerRequest,
    Stamp,
    data_sha256,
    model_files,
    model_variant,
    read_metadata,
    read_tensors,
    weight_places,
)
from modules.plugin.params import NoParams, ParamInfo, param, stored_settings
from modules.plugin.routes import Asked, PageTab, Route
from modules.prompts.tags import Tag
from modules.prompts.tags import extract as extract_tags
from modules.sampling.samplers import Denoised, Sampler

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from modules.runtime.patches import AttentionHook, Embedding, WeightDelta, low_rank

    ModelCall = Callable[[ModelInput], torch.Tensor]
    Denoise = Callable[[torch.Tensor, float], Denoised]

__all__ = [
    "Asked", "AttentionHook", "Axis", "Bridge", "Context", "DarkroomError", "Denoised", "Embedding", "FinishedPicture",
    "Guidance", "InvalidModel", "InvalidRequest", "Mimicry", "ModelInput", "ModelRef", "NoParams", "NotFound",
    "OncePerRequest", "PageTab", "ParamInfo", "Pass", "Perturbation", "Picture", "Place", "Plan", "Plugin",
    "Projection", "Request", "Route", "Sampler", "Segment", "Settings", "SoftBlend", "Stamp", "Start", "StepState",
    "Tag", "Thresholding", "Upscaler", "Variant", "WeightDelta", "ZeroStar", "data_sha256", "extract_tags",
    "low_rank", "model_files", "model_variant", "param", "read_metadata", "read_outline", "read_tensors",
    "weight_places",
]

# Importing these imports torch, which the page's process must not: import them inside the methods that use them.
_PATCHES = ("AttentionHook", "Embedding", "WeightDelta", "low_rank")


def __getattr__(name: str) -> Any:
    if name in _PATCHES:
        from modules.runtime import patches

        return getattr(patches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class Context:
    """Where a plugin is and what it may read: its own folder, and the folders of models by kind."""

    folder: Path
    data_dir: Path
    folders: Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True)
class StepState:
    """The state after one model call: ``x0`` is the denoised estimate [pictures, channels, height, width]."""

    call: int
    calls: int
    sigma: float
    x0: torch.Tensor


class Plugin:
    """Base of all extensions; every method does nothing until it is overridden."""

    id: ClassVar[str] = ""
    name: ClassVar[str] = ""
    description: ClassVar[str] = ""
    version: ClassVar[str] = ""
    Params: ClassVar[type] = NoParams
    Settings: ClassVar[type] = NoParams

    tags: ClassVar[tuple[str, ...]] = ()
    panels: ClassVar[tuple[str, ...]] = ("txt2img", "img2img")
    sixteen_bits: ClassVar[bool] = False

    def __init__(self, context: Context) -> None:
        self.context = context

    def settings(self, request: Request) -> Any:
        """Return the plugin's ``Settings`` under which ``request`` was made (in a hook: ``plan.request``)."""
        return stored_settings(request.settings.extension_settings, self.id, self.Settings)

    def words(self, variant: Variant | None) -> Mapping[str, int]:
        """Return words of a prompt that stand for more than their tokens, and how many: for the token counter.

        ``variant`` is what the chosen checkpoint is, None where there is none.
        """
        return {}

    def routes(self) -> Sequence[Route]:
        """Return what the plugin answers over HTTP."""
        return ()

    def tabs(self) -> Sequence[PageTab]:
        """Return the tabs that the plugin adds to the page."""
        return ()

    def upscalers(self) -> Sequence[Upscaler]:
        """Return upscalers of pixels, which hires fix, img2img and the Extras tab offer under their names."""
        return ()

    def samplers(self) -> Sequence[Sampler]:
        """Return samplers that are offered beside the program's; their functions run in the engine's process."""
        return ()

    def axes(self) -> Sequence[Axis]:
        """Return axes of the X/Y/Z plot beside those of the parameters, each of which is one already."""
        return ()

    def expand(self, request: Request, params: Any) -> Sequence[Request] | None:
        """Turn one request into several, before they are queued."""
        return None

    def around(self, request: Request, params: Any, generate: Callable[[Request], Any]) -> Any:
        """Run a generation around itself: call ``generate`` as often as needed and return the last result."""
        return generate(request)

    def on_plan(self, plan: Plan, params: Any) -> Plan | None:
        """Change the plan: prompts and seeds of pictures, passes, infotext entries."""
        return None

    def depth(self, image: Image, params: Any) -> Image | None:
        """Return how near each part of a picture is, light for near: for models that are told so."""
        return None

    def patches(self, plan: Plan, segment: Segment, tags: Sequence[Tag], params: Any) -> Sequence[Any]:
        """Return weight deltas, embeddings and attention hooks for a segment; ``tags`` are those it declared."""
        return ()

    def wrap_model(self, call: ModelCall, plan: Plan, params: Any) -> ModelCall | None:
        """Wrap every call of the denoiser; see and change its ``ModelInput``."""
        return None

    def wrap_denoise(self, denoise: Denoise, plan: Plan, params: Any) -> Denoise | None:
        """Wrap the denoiser after guidance: masks, dynamic thresholding."""
        return None

    def on_step(self, state: StepState, params: Any) -> None:
        """See the state after each model call."""

    def on_image(self, picture: FinishedPicture, plan: Plan, params: Any) -> FinishedPicture | None:
        """Change a decoded picture, or its infotext, before it is saved."""
        return None

    def on_result(self, plan: Plan, params: Any) -> None:
        """All pictures of the request are saved."""

    def postprocess(self, image: Image, params: Any) -> Sequence[Image] | None:
        """Return what an enlarged picture of the Extras tab becomes: one picture or several.

        It is shown in 8 bits; with ``sixteen_bits`` one that has them is a ``DeepImage``, which can be cut, turned
        and resized like PIL's, and has its ``pixels``.
        Parameters are asked for in that tab where ``panels`` names ``extras``.
        """
        return None

    def on_close(self) -> None:
        """The process is about to end, or the plugin to be disabled."""
