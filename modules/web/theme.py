"""The look of the page: a darkroom under its safelight, and the same room by day."""

from __future__ import annotations

from typing import Any

from gradio.themes import Base
from gradio.themes.utils import colors, sizes

SAFELIGHT = colors.Color(
    name="safelight", c50="#fff4f1", c100="#ffe4dd", c200="#ffc9bc", c300="#fba48f", c400="#f27a5e", c500="#dd4f33",
    c600="#c23a20", c700="#a02e18", c800="#7d2614", c900="#5e1d10", c950="#3a1109",
)
AMBER = colors.Color(
    name="amber", c50="#fff8ec", c100="#ffecc9", c200="#fdd998", c300="#f9c063", c400="#f0a23c", c500="#d98520",
    c600="#b56814", c700="#8f4f12", c800="#6e3d12", c900="#523010", c950="#311b07",
)
STONE = colors.Color(
    name="stone", c50="#faf8f6", c100="#f3efec", c200="#e5dfda", c300="#cfc6bf", c400="#a79c94", c500="#7d726b",
    c600="#5f5650", c700="#423b37", c800="#2a2522", c900="#1b1816", c950="#121010",
)
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")

COLORS = {
    "body_background_fill": ("#f5f2ef", "#121010"),
    "body_text_color": ("#231f1c", "#ece6e1"),
    "body_text_color_subdued": ("#655c55", "#a99e96"),
    "background_fill_primary": ("#ffffff", "#1b1816"),
    "background_fill_secondary": ("#faf8f6", "#171413"),
    "block_background_fill": ("transparent", "transparent"),
    "block_border_color": ("#e0d9d3", "#2e2926"),
    "block_label_background_fill": ("transparent", "transparent"),
    "block_label_text_color": ("#5a514b", "#b5aaa2"),
    "block_title_text_color": ("#4c443f", "#c9beb6"),
    "block_info_text_color": ("#6d635c", "#978c84"),
    "border_color_primary": ("#e0d9d3", "#2e2926"),
    "border_color_accent": ("*primary_600", "*primary_500"),
    "color_accent_soft": ("#fdebe6", "#331a13"),
    "input_background_fill": ("#fbf9f7", "#131110"),
    "input_background_fill_focus": ("#ffffff", "#161312"),
    "input_border_color": ("#d5ccc5", "#38322e"),
    "input_border_color_focus": ("*primary_500", "*primary_500"),
    "input_placeholder_color": ("#8b8079", "#7b716a"),
    "button_primary_background_fill": ("*primary_600", "*primary_600"),
    "button_primary_background_fill_hover": ("*primary_700", "#d04428"),
    "button_primary_text_color": ("#ffffff", "#ffffff"),
    "button_primary_border_color": ("transparent", "transparent"),
    "button_secondary_background_fill": ("#efeae6", "#2a2522"),
    "button_secondary_background_fill_hover": ("#e5ded9", "#38312d"),
    "button_secondary_text_color": ("#2f2925", "#e6dfd9"),
    "button_secondary_border_color": ("transparent", "transparent"),
    "checkbox_background_color": ("#ffffff", "#131110"),
    "checkbox_background_color_selected": ("*primary_600", "*primary_600"),
    "checkbox_border_color": ("#b9aea6", "#564d47"),
    "checkbox_border_color_selected": ("*primary_600", "*primary_600"),
    "slider_color": ("*primary_600", "*primary_500"),
    "link_text_color": ("*primary_700", "*primary_300"),
    "link_text_color_hover": ("*primary_600", "*primary_200"),
}
SHAPES = {
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_padding": "0px",
    "block_label_padding": "0px",
    "block_title_text_size": "*text_sm",
    "block_title_text_weight": "500",
    "block_info_text_size": "*text_xs",
    "block_radius": "*radius_sm",
    "container_radius": "*radius_sm",
    "layout_gap": "10px",
    "form_gap_width": "0px",
    "input_border_width": "1px",
    "input_padding": "6px 9px",
    "input_radius": "5px",
    "input_text_size": "*text_sm",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 2px color-mix(in srgb, var(--primary-500) 35%, transparent)",
    "button_large_padding": "9px 14px",
    "button_large_text_size": "*text_md",
    "button_large_text_weight": "600",
    "button_large_radius": "6px",
    "button_small_padding": "5px 9px",
    "button_small_radius": "5px",
    "button_transform_hover": "none",
    "button_transform_active": "none",
    "button_primary_shadow": "none",
    "button_secondary_shadow": "none",
    "checkbox_label_padding": "4px 6px",
    "checkbox_label_background_fill": "transparent",
    "section_header_text_weight": "600",
}


def theme() -> Base:
    """Return the theme: system fonts, nothing from the network."""
    base = Base(primary_hue=SAFELIGHT, secondary_hue=AMBER, neutral_hue=STONE, text_size=sizes.text_md,
                spacing_size=sizes.spacing_sm, radius_size=sizes.radius_sm, font=FONT, font_mono=MONO)
    values: dict[str, Any] = dict(SHAPES)
    for name, (light, dark) in COLORS.items():
        values |= {name: light, f"{name}_dark": dark}
    return base.set(**values)
