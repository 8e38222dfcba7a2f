"""Every setting is one field: its control, documentation, default and validation follow from it.

Names are those that API clients, `override_settings` and old `config.json` files use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.core.errors import InvalidRequest


@dataclass(frozen=True)
class SettingInfo:
    """How one setting is shown and checked.

    ``infotext`` is the key under which a value that differs from the default is written beside a picture.
    ``choices`` is a tuple of fixed options, or the name of a list that the page fills in (``checkpoints``,
    ``vaes``, ``samplers``). ``restricted`` settings (folders, safety) cannot be changed by an API call.
    ``per_picture`` settings may be overridden by one request.
    """

    label: str
    section: str
    help: str = ""
    infotext: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] | str = ()
    restricted: bool = False
    per_picture: bool = False


def setting(default: Any, label: str, section: str, **info: Any) -> Any:
    """Declare one field of ``Settings`` with its default and its ``SettingInfo``."""
    return field(default=default, metadata={"info": SettingInfo(label, section, **info)})


MAX_NUMBER = 1e300
SAVING, MODEL, SAMPLING, VAE = "Saving images", "Stable Diffusion", "Sampler parameters", "VAE"
SDXL = "Stable Diffusion XL"
IMG2IMG, UPSCALING = "img2img", "Upscaling"
INFOTEXT, PREVIEW, PAGE, NETWORKS = "Infotext", "Live previews", "User interface", "Extra networks"
QUEUE, API, COMPATIBILITY = "Queue", "API", "Compatibility"
OPTIMIZATIONS = "Optimizations"
FACES = "Face restoration"


def _tile(label: str, note: str = "") -> Any:
    return setting(0, label, UPSCALING, minimum=0, maximum=1024, step=16, per_picture=True,
                   help=f"A side in pixels; 0 chooses by free memory.{note}")


def _overlap(label: str) -> Any:
    return setting(32, label, UPSCALING, minimum=0, maximum=256, step=1, per_picture=True,
                   help="In pixels; low values leave visible seams.")


# A1111's titles first, then those of kernels and packages by their own names.
ATTENTION = (
    "Automatic", "xformers", "sdp-no-mem - scaled dot product without memory efficient attention",
    "sdp - scaled dot product", "sub-quadratic", "V1 - original v1", "InvokeAI", "Doggettx", "None",
    "flash", "efficient", "cudnn", "flash-attn", "sage", "float32",
)


@dataclass(frozen=True)
class Settings:
    """A snapshot of all settings; a request carries the snapshot it was made under."""

    # Saving images
    samples_save: bool = setting(True, "Always save all generated images", SAVING)
    samples_format: str = setting("png", "File format for images", SAVING, choices=("png", "jpg", "webp"))
    samples_filename_pattern: str = setting("", "Images filename pattern", SAVING, restricted=True,
                                            help="Empty means [number]-[seed].")
    grid_save: bool = setting(True, "Always save all generated image grids", SAVING)
    grid_only_if_multiple: bool = setting(True, "Do not save grids consisting of one picture", SAVING)
    n_rows: int = setting(-1, "Grid row count", SAVING, minimum=-1, maximum=16, step=1,
                          help="-1 chooses by the number of pictures, 0 makes it the batch size.")
    return_grid: bool = setting(True, "Show grid in results for web", SAVING)
    jpeg_quality: int = setting(80, "Quality for saved jpeg and webp images", SAVING, minimum=1, maximum=100, step=1)
    webp_lossless: bool = setting(False, "Use lossless compression for webp images", SAVING)
    save_to_dirs: bool = setting(True, "Save images to a subdirectory", SAVING)
    directories_filename_pattern: str = setting("[date]", "Directory name pattern", SAVING, restricted=True)
    save_txt: bool = setting(False, "Write a text file with generation parameters next to every image", SAVING)
    save_incomplete_images: bool = setting(False, "Save interrupted images", SAVING)
    save_images_before_highres_fix: bool = setting(False, "Save a copy of image before applying highres fix", SAVING,
                                                   per_picture=True)

    # Stable Diffusion
    sd_model_checkpoint: str = setting("", "Stable Diffusion checkpoint", MODEL, choices="checkpoints",
                                       per_picture=True)
    sd_checkpoints_limit: int = setting(0, "Maximum number of checkpoints loaded at the same time", MODEL, minimum=0,
                                        maximum=10, step=1, help="0 keeps as many as half of the memory holds.")
    CLIP_stop_at_last_layers: int = setting(1, "Clip skip", MODEL, infotext="Clip skip", minimum=1, maximum=12,
                                            step=1, per_picture=True)
    emphasis: str = setting("Original", "Emphasis mode", MODEL, infotext="Emphasis", per_picture=True,
                            choices=("None", "Ignore", "Original", "No norm"),
                            help="How (more:1.1) and [less] emphasis in the prompt is applied.")
    comma_padding_backtrack: int = setting(20, "Prompt word wrap length limit", MODEL, minimum=0, maximum=74, step=1,
                                           per_picture=True,
                                           help="Tokens to look back for a comma when a prompt is cut into chunks.")
    randn_source: str = setting("CPU", "Random number generator source", MODEL, infotext="RNG", per_picture=True,
                                choices=("CPU", "NV", "GPU"),
                                help="CPU is the same on every machine; NV is what an NVIDIA card makes, anywhere.")
    hires_fix_refiner_pass: str = setting("second pass", "Hires fix: which pass to enable refiner for", MODEL,
                                          infotext="Hires refiner", per_picture=True,
                                          choices=("first pass", "second pass", "both passes"))

    # img2img
    inpainting_mask_weight: float = setting(
        1.0, "Inpainting conditioning mask strength", IMG2IMG, infotext="Conditional mask weight", minimum=0.0,
        maximum=1.0, step=0.01, per_picture=True, help="How much of what is repainted inpainting models do not see.")
    img2img_extra_noise: float = setting(
        0.0, "Extra noise multiplier for img2img and hires fix", IMG2IMG, infotext="Extra noise", minimum=0.0,
        maximum=1.0, step=0.01, per_picture=True, help="More noise makes more detail; less than the strength at most.")
    upscaler_for_img2img: str = setting(
        "None", "Upscaler for img2img", IMG2IMG, choices="upscalers", per_picture=True,
        help="What enlarges a picture to the size asked for; None is Lanczos.")
    img2img_color_correction: bool = setting(
        False, "Apply color correction to img2img results to match original colors", IMG2IMG, per_picture=True)
    img2img_fix_steps: bool = setting(
        False, "With img2img, do exactly the amount of steps the slider specifies", IMG2IMG, per_picture=True,
        infotext="Exact img2img steps", help="Otherwise the strength makes them fewer.")
    img2img_background_color: str = setting("#ffffff", "With img2img, fill transparent parts of the input image with "
                                            "this color", IMG2IMG, per_picture=True, help="#rrggbb")

    # Upscaling
    ESRGAN_tile: int = _tile("Tile size for ESRGAN upscalers",
                             " Upscalers of kinds that have no setting of their own follow it too.")
    ESRGAN_tile_overlap: int = _overlap("Tile overlap for ESRGAN upscalers")
    DAT_tile: int = _tile("Tile size for DAT upscalers")
    DAT_tile_overlap: int = _overlap("Tile overlap for DAT upscalers")
    SWIN_tile: int = _tile("Tile size for SwinIR upscalers")
    SWIN_tile_overlap: int = _overlap("Tile overlap for SwinIR upscalers")
    SCUNET_tile: int = _tile("Tile size for ScuNET upscalers")
    SCUNET_tile_overlap: int = _overlap("Tile overlap for ScuNET upscalers")
    realesrgan_enabled_models: tuple[str, ...] = setting(
        (), "Select which Real-ESRGAN models to show in the web UI", UPSCALING, choices="upscalers",
        help="None chosen: all that there are.")
    dat_enabled_models: tuple[str, ...] = setting(
        (), "Select which DAT models to show in the web UI", UPSCALING, choices="upscalers",
        help="None chosen: all that there are.")
    x4_upscaler_steps: int = setting(
        20, "Steps of diffusion upscalers", UPSCALING, infotext="x4 upscaler steps", minimum=1, maximum=150, step=1,
        per_picture=True, help="Of each tile, by DPM++ 2M with Karras' schedule.")
    x4_upscaler_noise_level: int = setting(
        20, "Noise level of diffusion upscalers", UPSCALING, infotext="x4 upscaler noise level", minimum=0,
        maximum=350, step=1, per_picture=True,
        help="How much noise is put on the picture before: more invents more and forgives flaws.")
    x4_upscaler_guidance: float = setting(
        5.0, "CFG scale of diffusion upscalers", UPSCALING, infotext="x4 upscaler CFG scale", minimum=1.0,
        maximum=30.0, step=0.5, per_picture=True, help="Counts where there is a prompt.")
    x4_upscaler_use_prompt: bool = setting(
        True, "Tell diffusion upscalers the picture's prompt", UPSCALING, infotext="x4 upscaler prompt",
        per_picture=True, help="That it is made from or, in Extras, that of its infotext.")
    x4_upscaler_tile: int = setting(
        128, "Tile size for diffusion upscalers", UPSCALING, infotext="x4 upscaler tile", minimum=64, maximum=512,
        step=8, per_picture=True, help="In pixels of the small picture; they were trained with 128.")
    x4_upscaler_tile_overlap: int = _overlap("Tile overlap for diffusion upscalers")

    # Stable Diffusion XL
    sdxl_crop_top: int = setting(0, "Crop top coordinate", SDXL, infotext="SDXL crop top", minimum=0, maximum=8192,
                                 step=1, per_picture=True, help="What the model is told of how the picture was cut.")
    sdxl_crop_left: int = setting(0, "Crop left coordinate", SDXL, infotext="SDXL crop left", minimum=0, maximum=8192,
                                  step=1, per_picture=True)
    sdxl_refiner_low_aesthetic_score: float = setting(
        2.5, "SDXL low aesthetic score", SDXL, infotext="SDXL low aesthetic score", minimum=0.0, maximum=10.0,
        step=0.1, per_picture=True, help="What the refiner is told beside the negative prompt.")
    sdxl_refiner_high_aesthetic_score: float = setting(
        6.0, "SDXL high aesthetic score", SDXL, infotext="SDXL high aesthetic score", minimum=0.0, maximum=10.0,
        step=0.1, per_picture=True, help="What the refiner is told beside the prompt.")
    sdxl_clip_l_skip: bool = setting(False, "Clip skip SDXL", SDXL, infotext="Clip skip SDXL", per_picture=True,
                                     help="Let Clip skip choose the layer of SDXL's first text encoder.")

    # VAE
    sd_vae: str = setting("Automatic", "SD VAE", VAE, choices="vaes", per_picture=True,
                          help="Automatic takes a VAE file named like the checkpoint; None the checkpoint's own.")

    # Face restoration
    face_restoration_model: str = setting("CodeFormer", "Face restoration model", FACES,
                                          infotext="Face restoration", per_picture=True,
                                          choices=("CodeFormer", "GFPGAN"))
    code_former_weight: float = setting(0.5, "CodeFormer weight", FACES, infotext="CodeFormer weight", minimum=0.0,
                                        maximum=1.0, step=0.01, per_picture=True,
                                        help="0 changes a face most, 1 least.")

    # Sampler parameters
    eta_ddim: float = setting(0.0, "Eta for DDIM", SAMPLING, infotext="Eta DDIM", minimum=0.0, maximum=1.0, step=0.01,
                              per_picture=True)
    eta_ancestral: float = setting(1.0, "Eta for k-diffusion samplers", SAMPLING, infotext="Eta", minimum=0.0,
                                   maximum=1.0, step=0.01, per_picture=True)
    s_churn: float = setting(0.0, "Sigma churn", SAMPLING, infotext="Sigma churn", minimum=0.0, maximum=100.0,
                             step=0.01, per_picture=True)
    s_tmin: float = setting(0.0, "Sigma tmin", SAMPLING, infotext="Sigma tmin", minimum=0.0, maximum=10.0, step=0.01,
                            per_picture=True)
    s_tmax: float = setting(0.0, "Sigma tmax", SAMPLING, infotext="Sigma tmax", minimum=0.0, maximum=999.0, step=0.01,
                            per_picture=True, help="0 means no limit.")
    s_noise: float = setting(1.0, "Sigma noise", SAMPLING, infotext="Sigma noise", minimum=0.0, maximum=1.1,
                             step=0.001, per_picture=True)
    sigma_min: float = setting(0.0, "Sigma min", SAMPLING, infotext="Schedule min sigma", minimum=0.0, maximum=2.0,
                               step=0.001, per_picture=True, help="0 is the model's own.")
    sigma_max: float = setting(0.0, "Sigma max", SAMPLING, infotext="Schedule max sigma", minimum=0.0, maximum=60.0,
                               step=0.01, per_picture=True, help="0 is the model's own.")
    rho: float = setting(0.0, "Rho", SAMPLING, infotext="Schedule rho", minimum=0.0, maximum=50.0, step=0.01,
                         per_picture=True, help="0 is the schedule's own.")
    beta_dist_alpha: float = setting(0.6, "Beta schedule alpha", SAMPLING, infotext="Beta schedule alpha",
                                     minimum=0.01, maximum=2.0, step=0.01, per_picture=True)
    beta_dist_beta: float = setting(0.6, "Beta schedule beta", SAMPLING, infotext="Beta schedule beta", minimum=0.01,
                                    maximum=2.0, step=0.01, per_picture=True)
    eta_noise_seed_delta: int = setting(0, "Eta noise seed delta", SAMPLING, infotext="ENSD", minimum=0,
                                        maximum=2**32 - 1, step=1, per_picture=True,
                                        help="31337 makes ancestral samplers agree with NovelAI.")
    always_discard_next_to_last_sigma: bool = setting(False, "Always discard next-to-last sigma", SAMPLING,
                                                      infotext="Discard penultimate sigma", per_picture=True)
    sgm_noise_multiplier: bool = setting(False, "SGM noise multiplier", SAMPLING, infotext="SGM noise multiplier",
                                         per_picture=True)
    uni_pc_variant: str = setting("bh1", "UniPC variant", SAMPLING, infotext="UniPC variant",
                                  choices=("bh1", "bh2", "vary_coeff"), per_picture=True)
    uni_pc_skip_type: str = setting("time_uniform", "UniPC skip type", SAMPLING, infotext="UniPC skip type",
                                    choices=("time_uniform", "time_quadratic", "logSNR"), per_picture=True)
    uni_pc_order: int = setting(3, "UniPC order", SAMPLING, infotext="UniPC order", minimum=1, maximum=50, step=1,
                                per_picture=True)
    uni_pc_lower_order_final: bool = setting(True, "UniPC lower order final", SAMPLING,
                                             infotext="UniPC lower order final", per_picture=True)

    skip_early_cond: float = setting(0.0, "Ignore negative prompt during early sampling", SAMPLING,
                                     infotext="Skip Early CFG", minimum=0.0, maximum=1.0, step=0.01, per_picture=True,
                                     help="The share of the first steps to make without guidance: faster, more varied.")

    # Optimizations
    cross_attention_optimization: str = setting(
        "Automatic", "Cross attention optimization", OPTIMIZATIONS, choices=ATTENTION,
        help="Automatic measures on a graphics card. What a machine lacks counts as Automatic; sage is not exact.")
    s_min_uncond: float = setting(0.0, "Negative Guidance minimum sigma", OPTIMIZATIONS, infotext="NGMS", minimum=0.0,
                                  maximum=15.0, step=0.01, per_picture=True,
                                  help="Below this noise level every other step leaves the negative prompt out, which "
                                       "is faster; 0 never.")
    s_min_uncond_all: bool = setting(False, "Negative Guidance minimum sigma all steps", OPTIMIZATIONS,
                                     infotext="NGMS all steps", per_picture=True,
                                     help="Leave it out of every step below that level.")
    fp8_storage: str = setting("Disable", "FP8 weight", OPTIMIZATIONS, infotext="FP8 weight", per_picture=True,
                               choices=("Disable", "Enable for SDXL", "Enable"),
                               help="Hold the denoiser in 8 bits: half the memory, slightly different pictures.")
    batch_cond_uncond: bool = setting(True, "Batch cond/uncond", OPTIMIZATIONS, per_picture=True,
                                      help="Both prompts in one model call; two calls need less memory.")

    # Compatibility
    use_old_scheduling: bool = setting(False, "Use old prompt editing timelines", COMPATIBILITY,
                                       infotext="Old prompt editing timelines", per_picture=True,
                                       help="Pictures of version 1.5 and earlier need it.")
    refiner_switch_by_sample_steps: bool = setting(
        False, "Switch to refiner by sampling steps instead of model timesteps", COMPATIBILITY, per_picture=True,
        infotext="Refiner switch by sampling steps", help="Pictures of version 1.7 and earlier need it.")

    # Infotext
    enable_pnginfo: bool = setting(True, "Write infotext to metadata of the generated image", INFOTEXT)
    add_model_name_to_info: bool = setting(True, "Add model name to infotext", INFOTEXT)
    add_model_hash_to_info: bool = setting(True, "Add model hash to infotext", INFOTEXT)
    add_vae_name_to_info: bool = setting(True, "Add VAE name to infotext", INFOTEXT)
    add_vae_hash_to_info: bool = setting(True, "Add VAE hash to infotext", INFOTEXT)
    add_version_to_infotext: bool = setting(True, "Add program version to infotext", INFOTEXT)

    # Live previews
    live_previews_enable: bool = setting(True, "Show live previews of the created image", PREVIEW)
    show_progress_every_n_steps: int = setting(1, "Live preview display period", PREVIEW, minimum=1, maximum=32,
                                               step=1, help="In sampling steps.")
    show_progress_type: str = setting("TAESD", "Live preview method", PREVIEW, choices=("Approx cheap", "TAESD"),
                                      help="TAESD is used where its file is in models/VAE-approx.")

    # Extra networks
    extra_networks_default_multiplier: float = setting(
        1.0, "Default multiplier for extra networks", NETWORKS, minimum=0.0, maximum=2.0, step=0.01,
        help="The weight of a tag that a card inserts, where the network prefers none.")

    # User interface
    hide_samplers: tuple[str, ...] = setting((), "Hide samplers in user interface", PAGE, choices="samplers")
    show_progress_in_title: bool = setting(True, "Show generation progress in window title", PAGE)
    send_seed: bool = setting(True, "Send seed when sending prompt or image to other interface", PAGE)
    send_size: bool = setting(True, "Send size when sending prompt or image to another interface", PAGE)
    disable_token_counters: bool = setting(False, "Disable prompt token counters", PAGE)

    disabled_extensions: tuple[str, ...] = setting((), "Disabled extensions", PAGE, restricted=True)
    extension_settings: str = setting("{}", "Settings of extensions", PAGE, restricted=True,
                                      help="JSON: values by name, by extension.")

    # Queue and API
    queue_keep_finished: int = setting(500, "Finished jobs to keep in the queue's history", QUEUE, minimum=1,
                                       maximum=100000, step=1)
    input_retention_days: int = setting(
        30, "Days to keep pictures that were begun from, after their last use", QUEUE, minimum=0, maximum=36500,
        help="0 keeps them for ever. Those of a form, or of a job in the queue or its history, are kept in any case.")
    spool_retention_hours: int = setting(24, "Hours to keep pictures that were asked not to be saved", QUEUE,
                                         minimum=1, maximum=720, step=1)
    api_enable_requests: bool = setting(True, "Allow http:// and https:// URLs for input images in API", API,
                                        restricted=True)
    api_forbid_local_requests: bool = setting(True, "Forbid URLs to local resources", API, restricted=True)


def setting_infos() -> dict[str, SettingInfo]:
    """Return each setting's ``SettingInfo`` by name, in the order in which they are shown."""
    return {item.name: item.metadata["info"] for item in dataclasses.fields(Settings)}


def check_value(name: str, value: Any) -> Any:
    """Return ``value`` in the type of setting ``name``.

    Raises ``InvalidRequest`` for an unknown name, a wrong type, a value out of range or not among the choices.
    """
    info = setting_infos().get(name)
    if info is None:
        raise InvalidRequest(f"There is no setting {name!r}.")
    value = _typed(name, value)
    if isinstance(info.choices, tuple) and info.choices and value not in info.choices:
        raise InvalidRequest(f"{name}: {value!r} is none of {', '.join(map(str, info.choices))}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = info.minimum, info.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            raise InvalidRequest(f"{name}: {value} is outside {low} to {high}.")
    return value


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return ``settings`` with ``values`` checked and applied; raises ``InvalidRequest`` as ``check_value``."""
    return dataclasses.replace(settings, **{name: check_value(name, value) for name, value in values.items()})


def _typed(name: str, value: Any) -> Any:
    default = Settings.__dataclass_fields__[name].default
    kind: type = type(default)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not -MAX_NUMBER <= value <= MAX_NUMBER:
            raise InvalidRequest(f"{name}: a finite number is expected.")
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is tuple and isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind is str and value is None:
        return ""
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise InvalidRequest(f"{name}: {kind.__name__} is expected, not {type(value).__name__}.")
