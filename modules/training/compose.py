"""Pictures made from objects with alpha: recoloured, placed and laid on flat grounds, in batches on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F

GROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (16, 16, 16),
    "gray": (136, 136, 136),
    "red": (214, 48, 44),
    "orange": (245, 146, 36),
    "yellow": (250, 221, 70),
    "green": (70, 170, 80),
    "blue": (52, 110, 220),
    "purple": (132, 72, 190),
    "pink": (246, 150, 190),
}
OBJECTS: dict[str, tuple[int, int, int]] = {
    "red": (216, 40, 40),
    "orange": (240, 130, 20),
    "yellow": (240, 205, 40),
    "green": (50, 160, 65),
    "blue": (40, 95, 220),
    "purple": (125, 60, 185),
    "pink": (240, 120, 170),
}
LUMA = (0.299, 0.587, 0.114)
NATURAL = "natural"


def colour_rows(names: list[str] | tuple[str, ...], table: dict[str, tuple[int, int, int]]) -> torch.Tensor:
    """Return the colours of ``names`` [n, 3] in 0..1; a name that the table lacks is a row of NaN (leave as it is)."""
    absent = (float("nan"),) * 3
    return torch.tensor([[c / 255 for c in table[name]] if name in table else absent for name in names])


def tint(rgb: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Recolour [n, 3, h, w] in 0..1 with [n, 3]: shades of the colour by luma, dark to light; NaN rows stay.

    Black maps to a quarter of the colour, mid-grey to the colour and white to three quarters of the way to white, so
    shading and details stay readable while the whole object has one hue; 15 % of the original keeps eyes and mouths.
    """
    weights = rgb.new_tensor(LUMA).view(1, 3, 1, 1)
    luma = (rgb * weights).sum(1, keepdim=True)
    colour = torch.nan_to_num(colours)[:, :, None, None]
    shade = torch.lerp(0.25 * colour, colour, (2 * luma).clamp(0, 1))
    shade = torch.lerp(shade, 0.25 * colour + 0.75, (2 * luma - 1).clamp(0, 1))
    keep = colours.isnan().any(1)[:, None, None, None]
    return torch.where(keep, rgb, 0.85 * shade + 0.15 * rgb)


def place(premultiplied: torch.Tensor, scale: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Scale [n, 4, h, w] by ``scale`` [n] (1 fills the frame) around ``centre`` [n, 2] (x, y in -1..1).

    Averages over the area first where an object shrinks, so that small objects do not alias.
    """
    if bool((scale == 1).all()) and bool((centre == 0).all()):
        return premultiplied
    theta = torch.zeros(len(scale), 2, 3, device=premultiplied.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = -centre / scale[:, None]
    smooth = F.avg_pool2d(F.pad(premultiplied, (0, 1, 0, 1)), 2, 1)
    source = torch.where((scale < 0.75)[:, None, None, None], smooth, premultiplied)
    grid = F.affine_grid(theta, list(source.shape), align_corners=False)
    return F.grid_sample(source, grid, padding_mode="zeros", align_corners=False)


def compose(
    rgba: torch.Tensor,
    grounds: torch.Tensor,
    colours: torch.Tensor,
    scale: torch.Tensor | None = None,
    centre: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return pictures [n, 3, h, w] float32 in -1..1 from uint8 ``rgba`` on flat ``grounds`` [n, 3] in 0..1.

    ``colours`` [n, 3] tint the object (NaN rows: its own colours); ``scale`` and ``centre`` as in ``place``.
    """
    pixels = rgba.float() / 255
    alpha = pixels[:, 3:]
    layer = torch.cat([tint(pixels[:, :3], colours) * alpha, alpha], 1)
    if scale is not None and centre is not None:
        layer = place(layer, scale, centre)
    ground = grounds[:, :, None, None]
    return (layer[:, :3] + ground * (1 - layer[:, 3:])).clamp(0, 1) * 2 - 1
