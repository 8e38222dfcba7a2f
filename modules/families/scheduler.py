"""What a checkpoint says of its training: what its denoiser predicts, and on which noise levels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from modules.core.errors import InvalidModel
from modules.library.headers import Header
from modules.sampling.spaces import Prediction, Published, Space, space_from_alphas_cumprod, space_from_betas

PREDICTIONS = ("epsilon", "v_prediction")
# As yaml files of latent-diffusion and the metadata of files (modelspec) spell them.
SPELLINGS = {"v": "v_prediction", "v_prediction": "v_prediction", "eps": "epsilon", "epsilon": "epsilon"}
# The smallest signal that is left at the last step of a schedule rescaled to end in pure noise, as A1111 sets it.
TERMINAL_ALPHA = 4.8973451890853435e-08
YAML_BYTES = 64 * 1024
_PARAMETERIZATION = re.compile(r"^\s*parameterization:\s*[\"']?(\w+)", re.MULTILINE)


def stated(header: Header) -> dict[str, Any]:
    """Return what a single file says of its training, under the names of diffusers' ``scheduler_config.json``.

    Tensors that are mere markers (``v_pred``, ``ztsnr``) come first, then latent-diffusion's configuration in a yaml
    beside the file, then metadata. ``prediction_type`` is absent where nothing says it.
    """
    marked = {"zero_terminal_snr": True} if "ztsnr" in header.tensors else {}
    prediction = "v_prediction" if "v_pred" in header.tensors else _in_yaml(header.path) or _in_metadata(header)
    return {**marked, "prediction_type": prediction} if prediction else marked


def _in_yaml(path: str) -> str | None:
    """Return the prediction that the yaml of the same name sets; it is epsilon where a model's yaml does not."""
    beside = Path(path).with_suffix(".yaml") if Path(path).name else Path()
    if not beside.is_file():
        return None
    with beside.open("rb") as file:
        text = file.read(YAML_BYTES).decode("utf-8", "replace")
    found = _PARAMETERIZATION.search(text)
    if found:
        return SPELLINGS.get(found[1])
    return "epsilon" if "target:" in text else None


def _in_metadata(header: Header) -> str | None:
    return SPELLINGS.get(header.metadata.get("modelspec.prediction_type", ""))


def prediction(config: Mapping[str, Any], usual: str = "epsilon") -> str:
    """Return the prediction of a scheduler's configuration. Raises ``InvalidModel`` for one that is not supported."""
    found = str(config.get("prediction_type", usual))
    if found not in PREDICTIONS:
        raise InvalidModel(f"The model predicts {found!r}; only {' and '.join(PREDICTIONS)} are supported.")
    return found


def space(config: Mapping[str, Any], predicted: str, published: Published = "sd1") -> Space:
    """Return the noise levels of a scheduler's configuration; Stable Diffusion's own where it says nothing."""
    kind = cast(Prediction, predicted)
    try:
        found = space_from_betas(
            str(config.get("beta_schedule", "scaled_linear")), float(config.get("beta_start", 0.00085)),
            float(config.get("beta_end", 0.012)), int(config.get("num_train_timesteps", 1000)), kind, published,
        )
    except (ValueError, TypeError) as error:
        raise InvalidModel(f"The model's scheduler_config.json is not usable: {error}.") from error
    if not (config.get("zero_terminal_snr") or config.get("rescale_betas_zero_snr")):
        return found
    return space_from_alphas_cumprod(zero_terminal(found.alphas_cumprod), kind, published)


def zero_terminal(alphas_cumprod: Sequence[float]) -> tuple[float, ...]:
    """Return the table shifted and scaled to end in (almost) pure noise (Lin et al. 2023, algorithm 1)."""
    roots = [math.sqrt(value) for value in alphas_cumprod]
    scale = roots[0] / (roots[0] - roots[-1])
    rescaled = [((root - roots[-1]) * scale) ** 2 for root in roots]
    return (*rescaled[:-1], TERMINAL_ALPHA)
