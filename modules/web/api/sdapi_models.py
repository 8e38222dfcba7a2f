"""What goes in and out of ``/sdapi/v1``: A1111's names, types and defaults (version 1.10.1)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from modules.web.api.native_models import Out as Answer
from modules.web.api.native_models import Settings


class GenerationRequest(BaseModel):
    """What both kinds of requests share."""

    model_config = ConfigDict(allow_inf_nan=False, extra="ignore")

    prompt: str | None = ""
    negative_prompt: str | None = ""
    styles: list[str] | None = Field(None, description="Names of styles in styles.csv.")
    seed: int | None = Field(-1, description="-1 is a random one.")
    subseed: int | None = -1
    subseed_strength: float | None = 0.0
    seed_resize_from_h: int | None = -1
    seed_resize_from_w: int | None = -1
    sampler_name: str | None = Field(None, description="May end in a schedule, as in DPM++ 2M Karras.")
    scheduler: str | None = Field(None, description="Name or label of a schedule.")
    batch_size: int | None = 1
    n_iter: int | None = Field(1, description="Batches.")
    steps: int | None = 50
    cfg_scale: float | None = 7.0
    width: int | None = 512
    height: int | None = 512
    restore_faces: bool | None = Field(None, description="By the setting face_restoration_model.")
    tiling: bool | None = None
    do_not_save_samples: bool | None = Field(False, description="No effect: save_images decides.")
    do_not_save_grid: bool | None = Field(False, description="No effect: save_images decides.")
    eta: float | None = None
    denoising_strength: float | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    override_settings: dict[str, Any] | None = Field(None, description="Settings for this request alone.")
    override_settings_restore_afterwards: bool | None = Field(True, description="false keeps them.")
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool | None = False
    comments: dict[str, Any] | None = None
    force_task_id: str | None = Field(None, description="The job's id, for /internal/progress.")
    sampler_index: str | None = Field("Euler", description="The older name of sampler_name, which wins.")
    script_name: str | None = None
    script_args: list[Any] | None = []
    send_images: bool | None = True
    save_images: bool | None = False
    alwayson_scripts: dict[str, Any] | None = {}
    infotext: str | None = Field(None, description="Fills every field that is not sent.")


class Txt2ImgRequest(GenerationRequest):
    """A picture to make. Any field may be left out or null; unknown fields are ignored."""

    firstpass_image: str | None = Field(None, description="With enable_hr: what the first pass would have made.")
    enable_hr: bool | None = False
    firstphase_width: int | None = 0
    firstphase_height: int | None = 0
    hr_scale: float | None = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int | None = 0
    hr_resize_x: int | None = 0
    hr_resize_y: int | None = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str | None = ""
    hr_negative_prompt: str | None = ""
    hr_cfg: float | None = Field(None, description="Forge's: the hires pass's CFG scale; null is that of the first.")


class Img2ImgRequest(GenerationRequest):
    """A picture to make from another. Any field may be left out or null; unknown fields are ignored.

    Pictures and masks are base64, data URIs or addresses of http(s).
    """

    init_images: list[str] | None = Field(None, description="One for all, or one for each of a batch.")
    denoising_strength: float | None = 0.75
    resize_mode: int | None = Field(0, description="0 resize, 1 crop, 2 fill, 3 resize the latent.")
    image_cfg_scale: float | None = Field(None, description="For InstructPix2Pix models; null is 1.5.")
    mask: str | None = Field(None, description="White is repainted. Its size is that of the picture.")
    depth_map: str | None = Field(None, description="Light is near; for checkpoints that are told the depth.")
    mask_blur_x: int | None = 4
    mask_blur_y: int | None = 4
    mask_blur: int | None = Field(None, description="Both directions at once; wins over the other two.")
    mask_round: bool | None = True
    inpainting_fill: int | None = Field(0, description="0 fill, 1 original, 2 latent noise, 3 latent nothing.")
    inpaint_full_res: bool | None = Field(True, description="Repaint only the part around the mask, at full size.")
    inpaint_full_res_padding: int | None = 0
    inpainting_mask_invert: int | None = 0
    initial_noise_multiplier: float | None = None
    latent_mask: str | None = Field(None, description="White is repainted in the latent, in place of mask.")
    include_init_images: bool | None = Field(False, description="Send the pictures back in parameters.")


class Txt2ImgAnswer(Answer):
    """Pictures as base64, a grid first if there is one; ``info`` is JSON."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


class PngInfoRequest(BaseModel):
    """A picture: base64, a data URI, or an address of http(s)."""

    image: str


class PngInfoAnswer(Answer):
    """What a picture carries: its infotext, its other texts, and the infotext's entries by name."""

    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]


class ExtrasRequest(BaseModel):
    """How to enlarge pictures and restore the faces in them."""

    model_config = ConfigDict(allow_inf_nan=False, extra="ignore")

    resize_mode: int = Field(0, description="0 by upscaling_resize, 1 to upscaling_resize_w by upscaling_resize_h.")
    show_extras_results: bool = Field(True, description="No effect.")
    gfpgan_visibility: float = 0
    codeformer_visibility: float = 0
    codeformer_weight: float = Field(0, description="0 changes a face most, 1 least.")
    upscaling_resize: float = 2
    upscaling_resize_w: int = 512
    upscaling_resize_h: int = 512
    upscaling_crop: bool = True
    upscaler_1: str = Field("None", description="None leaves the picture as it is.")
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: float = 0
    upscale_first: bool = Field(False, description="Enlarge before faces are restored, not after.")


class ExtrasSingleRequest(ExtrasRequest):
    """A picture to enlarge: base64, a data URI, or an address of http(s)."""

    image: str = ""


class FileData(BaseModel):
    """A picture and the name of its file."""

    data: str
    name: str


class ExtrasBatchRequest(ExtrasRequest):
    """Pictures to enlarge."""

    imageList: list[FileData]


class ExtrasSingleAnswer(Answer):
    """The picture as base64."""

    html_info: str
    image: str


class ExtrasBatchAnswer(Answer):
    """The pictures as base64; ``html_info`` names those that were left out."""

    html_info: str
    images: list[str]


class State(Answer):
    """What runs; ``job_no`` of ``job_count`` batches is at step ``sampling_step`` of ``sampling_steps``."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class ProgressAnswer(Answer):
    """Progress of what runs, 0 to 1, and seconds left; ``current_image`` is a JPEG as base64."""

    progress: float = 0.0
    eta_relative: float = 0.0
    state: State = State()
    current_image: str | None = None
    textinfo: str | None = None


class TaskRequest(BaseModel):
    """Which job, and the number of the last preview that was seen."""

    id_task: str | None = None
    id_live_preview: int | None = -1
    live_preview: bool | None = True


class TaskAnswer(Answer):
    """Progress of one job; ``live_preview`` is a data URI and only there if it is a new one."""

    active: bool
    queued: bool
    completed: bool
    progress: float | None = None
    eta: float | None = None
    live_preview: str | None = None
    id_live_preview: int | None = None
    textinfo: str | None = None


class PendingTasks(Answer):
    """Ids of the jobs that wait."""

    size: int
    tasks: list[str]


class SamplerItem(Answer):
    name: str
    aliases: list[str]
    options: dict[str, str]


class SchedulerItem(Answer):
    name: str
    label: str
    aliases: list[str] | None
    default_rho: float | None
    need_inner_model: bool | None


class UpscalerItem(Answer):
    name: str
    model_name: str | None
    model_path: str | None
    model_url: str | None
    scale: float | None


class RealesrganItem(Answer):
    name: str
    path: str | None
    scale: int | None


class FaceRestorerItem(Answer):
    name: str
    cmd_dir: str | None


class NamedItem(Answer):
    name: str


class ModelItem(Answer):
    title: str
    model_name: str
    hash: str | None
    sha256: str | None
    filename: str
    config: str | None


class VaeItem(Answer):
    model_name: str
    filename: str


class StyleItem(Answer):
    name: str
    prompt: str | None
    negative_prompt: str | None


class EmbeddingsAnswer(Answer):
    loaded: dict[str, Any]
    skipped: dict[str, Any]


class ScriptsAnswer(Answer):
    txt2img: list[str]
    img2img: list[str]


class ScriptArgument(Answer):
    label: str
    value: Any = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: list[Any] | None = None


class ScriptInfo(Answer):
    name: str
    is_alwayson: bool
    is_img2img: bool
    args: list[ScriptArgument]


class ExtensionItem(Answer):
    name: str
    remote: str
    branch: str
    commit_hash: str
    version: str
    commit_date: str
    enabled: bool


class MemoryAnswer(Answer):
    """Bytes by name, or ``error``."""

    ram: dict[str, Any]
    cuda: dict[str, Any]


class Options(Settings):
    """Every setting, and the sha256 of the chosen checkpoint, null while unknown."""

    sd_checkpoint_hash: str | None
