"""The command-line flags that do something: one dataclass field each.

Names are AUTOMATIC1111's; `modules.launcher.foreign_flags` lists those that are accepted and have no effect.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from modules.core.errors import InvalidRequest


@dataclass(frozen=True)
class FlagInfo:
    """How a flag is shown and read: ``aliases`` are other programs' names for it, ``several`` takes many words."""

    group: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    several: bool = False
    secret: bool = False


def flag(default: Any, group: str, text: str, **info: Any) -> Any:
    """Declare one field of ``Flags`` with its default and its ``FlagInfo``; secrets stay out of ``repr``."""
    return field(default=default, repr=not info.get("secret"), metadata={"info": FlagInfo(group, text, **info)})


ENVIRONMENT, FOLDERS, SERVER, ACCESS = "environment", "folders", "server", "access"
PAGE, ENGINE, ATTENTION, LOGGING = "page and extensions", "engine", "attention", "messages"


@dataclass(frozen=True)
class Flags:
    """What the command line says. A field ``no_half`` is the flag ``--no-half``; None and empty mean not given."""

    skip_prepare_environment: bool = flag(False, ENVIRONMENT, "use the Python it is started with as it is")
    skip_install: bool = flag(False, ENVIRONMENT, "install nothing; use the environment as it is")
    skip_python_version_check: bool = flag(False, ENVIRONMENT, "do not check the version of Python")
    skip_torch_cuda_test: bool = flag(False, ENVIRONMENT, "do not check that torch reaches the accelerator")
    reinstall_torch: bool = flag(False, ENVIRONMENT, "choose and install torch again, such as for a new graphics card")
    xformers: bool = flag(False, ENVIRONMENT, "install xformers where there is a wheel for the machine, and prefer it",
                          aliases=("--force-enable-xformers", "--use-xformers"))
    reinstall_xformers: bool = flag(False, ENVIRONMENT, "install xformers again")

    data_dir: str = flag("", FOLDERS, "folder of models, embeddings, outputs and settings", metavar="DIR")
    models_dir: str = flag("", FOLDERS, "folder of models; overrides --data-dir", metavar="DIR")
    ckpt: str = flag("", FOLDERS, "a checkpoint to add to the list and to start with", metavar="FILE")
    ckpt_dir: str = flag("", FOLDERS, "folder of checkpoints", metavar="DIR")
    vae_dir: str = flag("", FOLDERS, "folder of VAEs", metavar="DIR")
    lora_dir: str = flag("", FOLDERS, "folder of LoRA files", metavar="DIR")
    embeddings_dir: str = flag("", FOLDERS, "folder of textual inversion embeddings", metavar="DIR")
    esrgan_models_path: str = flag("", FOLDERS, "folder of upscalers", metavar="DIR")
    gfpgan_models_path: str = flag("", FOLDERS, "folder of GFPGAN and what finds faces", metavar="DIR")
    codeformer_models_path: str = flag("", FOLDERS, "folder of CodeFormer", metavar="DIR")
    hypernetwork_dir: str = flag("", FOLDERS, "folder of hypernetworks", metavar="DIR")
    output_dir: str = flag("", FOLDERS, "folder that pictures are saved in", metavar="DIR")
    ui_settings_file: str = flag("", FOLDERS, "file of settings (config.json)", metavar="FILE")

    listen: bool = flag(False, SERVER, "answer other machines too (0.0.0.0); needs accounts")
    server_name: str = flag("", SERVER, "address to answer on", metavar="HOST")
    port: int | None = flag(None, SERVER, "port; without it 7860 or the next free one", metavar="N")
    api: bool = flag(False, SERVER, "serve the API beside the page")
    nowebui: bool = flag(False, SERVER, "serve the API alone, without the page")
    share: bool = flag(False, SERVER, "open a public address through gradio's tunnel; needs accounts")
    subpath: str = flag("", SERVER, "path under which a reverse proxy serves the page", metavar="PATH")
    tls_keyfile: str = flag("", SERVER, "private key for https", metavar="FILE")
    tls_certfile: str = flag("", SERVER, "certificate for https", metavar="FILE")
    cors_allow_origins: str = flag("", SERVER, "web sites that may call the API, separated by commas", metavar="URLS",
                                   aliases=("--cors-origins",))
    cors_allow_origins_regex: str = flag("", SERVER, "a regular expression of such web sites", metavar="REGEX",
                                         aliases=("--cors-regex",))
    timeout_keep_alive: int = flag(30, SERVER, "seconds an idle connection is kept", metavar="N")

    gradio_auth: str = flag("", ACCESS, "accounts for page and API", metavar="USER:PASSWORD,...", secret=True,
                            aliases=("--auth",))
    gradio_auth_path: str = flag("", ACCESS, "file of such accounts, one a line", metavar="FILE",
                                 aliases=("--auth-file",))
    api_auth: str = flag("", ACCESS, "accounts; the same as --gradio-auth", metavar="USER:PASSWORD,...", secret=True)
    freeze_settings: bool = flag(False, ACCESS, "lock all settings", aliases=("--freeze",))

    enable_insecure_extension_access: bool = flag(
        False, ACCESS, "extensions may be installed although others reach the program")

    disable_extra_extensions: bool = flag(False, PAGE, "run only the extensions that come with the program",
                                          aliases=("--safe",))
    disable_all_extensions: bool = flag(False, PAGE, "run no extensions")
    autolaunch: bool = flag(False, PAGE, "open the page in the browser")
    theme: str | None = flag(None, PAGE, "colours of the page", choices=("light", "dark"))

    device_id: str = flag("", ENGINE, "which accelerator to use", metavar="N", aliases=("--gpu-device-id",))
    use_cpu: tuple[str, ...] = flag((), ENGINE, "parts that run on the CPU, or all", metavar="PART", several=True)
    no_half: bool = flag(False, ENGINE, "32-bit floats for the whole model", aliases=("--all-in-fp32",))
    no_half_vae: bool = flag(False, ENGINE, "32-bit floats for the VAE", aliases=("--vae-in-fp32",))
    precision: str = flag("autocast", ENGINE, "full computes in 32-bit floats", choices=("autocast", "half", "full"))
    upcast_sampling: bool = flag(False, ENGINE, "keep weights in 16 bits and compute in 32")
    vram_budget: float | None = flag(None, ENGINE, "how much of the device's memory may be used, in GiB", metavar="GB")
    reserve_vram: float | None = flag(None, ENGINE, "how much of it is left to others, in GiB; without it 1",
                                      metavar="GB")
    medvram: bool = flag(False, ENGINE, "the same as --vram-budget 6")
    medvram_sdxl: bool = flag(False, ENGINE, "the same as --vram-budget 6; smaller models fit in that")
    lowvram: bool = flag(False, ENGINE, "the same as --vram-budget 2", aliases=("--always-low-vram",))
    always_no_vram: bool = flag(False, ENGINE, "the same as --vram-budget 1", aliases=("--novram",))
    always_gpu: bool = flag(False, ENGINE, "the same as --reserve-vram 0", aliases=("--gpu-only",))
    always_offload_from_vram: bool = flag(False, ENGINE, "leave nothing in the device's memory after its use")
    opt_channelslast: bool = flag(False, ENGINE, "hold the weights of convolutions with their channels together")
    fast_fp16: bool = flag(False, ENGINE, "sum float16 matrix products in float16: faster on GeForce, less exact",
                           aliases=("--fast-fp16-accumulation",))

    disable_xformers: bool = flag(False, ATTENTION, "leave xformers out of what is measured")
    xformers_flash_attention: bool = flag(False, ATTENTION, "prefer xformers with FlashAttention")
    use_sage_attention: bool = flag(False, ATTENTION, "prefer SageAttention, if it is installed; not exact",
                                    aliases=("--sage",))
    use_flash_attention: bool = flag(False, ATTENTION, "prefer the package flash-attn, if it is installed",
                                     aliases=("--flash",))
    opt_sdp_attention: bool = flag(False, ATTENTION, "prefer PyTorch's own choice of kernel",
                                   aliases=("--attention-pytorch",))
    opt_sdp_no_mem_attention: bool = flag(False, ATTENTION, "the same without its memory efficient kernel")
    opt_sub_quad_attention: bool = flag(False, ATTENTION, "prefer sub-quadratic attention: little memory, any device",
                                        aliases=("--attention-quad",))
    sub_quad_q_chunk_size: int | None = flag(None, ATTENTION, "queries at a time in it; 1024", metavar="N")
    sub_quad_kv_chunk_size: int | None = flag(None, ATTENTION, "keys at a time in it; by free memory", metavar="N")
    sub_quad_chunk_threshold: int | None = flag(None, ATTENTION, "percent of free memory below which it takes all keys "
                                                "at a time; 70", metavar="N")
    opt_split_attention: bool = flag(False, ATTENTION, "prefer slices of queries that fit in free memory",
                                     aliases=("--attention-split",))
    opt_split_attention_invokeai: bool = flag(False, ATTENTION, "the same here")
    opt_split_attention_v1: bool = flag(False, ATTENTION, "prefer slices of two heads")
    disable_opt_split_attention: bool = flag(False, ATTENTION, "prefer plain attention, with all scores in memory")

    loglevel: str = flag("INFO", LOGGING, "least important messages to show",
                         choices=("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"))
    disable_console_progressbars: bool = flag(False, LOGGING, "no progress bars on the terminal")

    # What the flags of access amount to, filled in when they are read; the one list for page and API.
    accounts: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def folders(self) -> dict[str, str]:
        """Return the folders and files that were given, by field name, as the model library takes them."""
        names = [name for name, info in flag_infos().items() if info.group == FOLDERS]
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def public(self) -> dict[str, Any]:
        """Return every flag by name for the API; accounts show only whether there are any."""
        values = {name: (getattr(self, name), info.secret) for name, info in flag_infos().items()}
        return {name: "***" if value and secret else value for name, (value, secret) in values.items()}


def flag_infos() -> dict[str, FlagInfo]:
    """Return each flag's ``FlagInfo`` by its field's name, in order."""
    return {item.name: item.metadata["info"] for item in dataclasses.fields(Flags) if "info" in item.metadata}


def add_flags(parser: argparse.ArgumentParser, groups: Iterable[str] = ()) -> None:
    """Add every flag to ``parser`` under its group's heading, or those of ``groups`` alone."""
    hints, wanted = get_type_hints(Flags), tuple(groups)
    headings: dict[str, argparse._ArgumentGroup] = {}
    for name, info in flag_infos().items():
        if wanted and info.group not in wanted:
            continue
        if info.group not in headings:
            headings[info.group] = parser.add_argument_group(info.group)
        names = (f"--{name.replace('_', '-')}", *info.aliases)
        default = Flags.__dataclass_fields__[name].default
        headings[info.group].add_argument(*names, dest=name, default=default, **_argument(hints[name], info))


def flags_from(values: argparse.Namespace) -> Flags:
    """Return the ``Flags`` among ``values``; raises ``InvalidRequest`` if one is out of range or lacks another."""
    given: dict[str, Any] = {name: value for name, value in vars(values).items() if name in flag_infos()}
    return _checked(Flags(**given | {"use_cpu": tuple(given.get("use_cpu", ()))}))


def _argument(kind: Any, info: FlagInfo) -> dict[str, Any]:
    if kind is bool:
        return {"action": "store_true", "help": info.help}
    types = {int: int, int | None: int, float | None: float}
    options: dict[str, Any] = {"help": info.help, "type": types.get(kind, str)}
    if info.choices:
        return options | {"choices": info.choices}
    return options | {"metavar": info.metavar} | ({"nargs": "+"} if info.several else {})


def _checked(flags: Flags) -> Flags:
    if flags.port is not None and not 1 <= flags.port <= 65535:
        raise InvalidRequest(f"--port {flags.port} is not a port.", "Ports are 1 to 65535.")
    if flags.timeout_keep_alive < 0:
        raise InvalidRequest("--timeout-keep-alive is in seconds and cannot be negative.")
    for name in ("sub_quad_q_chunk_size", "sub_quad_kv_chunk_size", "sub_quad_chunk_threshold"):
        if (getattr(flags, name) or 0) < 0:
            raise InvalidRequest(f"--{name.replace('_', '-')} cannot be negative.")
    if flags.vram_budget is not None and not 0 < flags.vram_budget < math.inf:
        raise InvalidRequest("--vram-budget is in GiB and above 0.", "--use-cpu all uses no accelerator.")
    if flags.reserve_vram is not None and not 0 <= flags.reserve_vram < math.inf:
        raise InvalidRequest("--reserve-vram is in GiB and cannot be negative.")
    if bool(flags.tls_keyfile) != bool(flags.tls_certfile):
        missing = "--tls-certfile" if flags.tls_keyfile else "--tls-keyfile"
        raise InvalidRequest("https needs both a key and a certificate.", f"Add {missing} FILE.")
    return flags
