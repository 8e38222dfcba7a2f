"""Flags of AUTOMATIC1111's web UI and its relatives that are accepted without effect, and why.

Start scripts written for those programs keep working; each flag is answered with one line.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

# Reason -> the flags it answers. A word after a flag is the value it takes.
REASONS: Mapping[str, str] = {
    "memory is placed automatically": """
        --lowram --always-high-vram --always-normal-vram --always-cpu --cuda-malloc --cuda-stream
        --pin-shared-memory --expandable-segments --disable-model-loading-ram-optimization
        --highvram --normalvram --tiled-conv2d V --text-enc-device V --vae-device V""",
    "attention is chosen automatically": """
        --force-upcast-attention --disable-attention-upcast --sage-function V --disable-sage --disable-flash""",
    "the number type follows from the device": """
        --all-in-fp16 --unet-in-bf16 --unet-in-fp16 --unet-in-fp8-e4m3fn --unet-in-fp8-e5m2 --vae-in-fp16
        --vae-in-bf16 --vae-in-cpu --clip-in-fp8-e4m3fn --clip-in-fp8-e5m2 --clip-in-fp16 --clip-in-fp32
        --fast-fp8 --autotune --pytorch-deterministic""",
    "the accelerator is found automatically": """
        --use-ipex --use-cuda --use-rocm --use-zluda --use-openvino --use-directml --use-nightly --directml
        --disable-ipex-hijack --disable-gpu-warning""",
    "results are always checked for NaN": "--disable-nan-check",
    "files that could run code are never loaded": "--disable-safe-unpickle --allow-code --insecure",
    "the name of a file never needs its hash": "--no-hashing",
    "nothing is downloaded at start": """
        --no-download-sd-model --do-not-download-clip --update-check --update-all-extensions --skip-version-check
        --skip-google-blockly --upgrade --update""",
    "a model is loaded when a picture first needs it": "--skip-load-model-at-start --ui-debug-mode",
    "the page is always served through its own queue": "--gradio-queue --no-gradio-queue --gradio-debug",
    "the page reads its fields from the server": """
        --ui-config-file V --ui-config V --use-textbox-seed --no-progressbar-hiding --no-prompt-history
        --show-negative-prompt --enable-console-prompts --gradio-img2img-tool V --gradio-inpaint-tool V
        --max-batch-count V""",
    "pictures are served from the output folders alone": "--gradio-allowed-path V --allowed-paths V",
    "folders cannot be changed from the page": "--hide-ui-dir-config",
    "use --freeze-settings, which locks them all": "--freeze-settings-in-sections V --freeze-specific-settings V",
    "the tunnel is not supported; use --share": "--ngrok V --ngrok-region V --ngrok-options V",
    "self-signed certificates need no flag": "--disable-tls-verify --tls-selfsign",
    "the program is stopped with Ctrl+C": "--api-server-stop --add-stop-route",
    "use --loglevel DEBUG": "--api-log --log-startup --log --debug --trace --profile --monitor V --status V",
    "the VAE is chosen on the page or with txt2img --vae": "--vae-path V",
    "the family follows from the checkpoint's header": "--config V",
    "file names are always safe for every system": "--unix-filenames-sanitization --filenames-max-length V",
    "there is no use for it here yet": """
        --gfpgan-dir V --gfpgan-model V --unload-gfpgan
        --bsrgan-models-path V --realesrgan-models-path V --dat-models-path V --clip-models-path V
        --ldsr-models-path V --scunet-models-path V --swinir-models-path V --lyco-dir-backcompat V --deepdanbooru
        --textual-inversion-templates-dir V --localizations-dir V --locale V --styles-file V
        --always-batch-cond-uncond --text-encoder-dir V --administrator
        --extensions-dir V --dump-sysinfo --test-server --nunchaku --bnb --onnxruntime-gpu --adv-samplers --adv-xyz
        --fps V --model-ref V --forge-ref-a1111-home V --forge-ref-comfy-home V --forge-ref-comfy-yaml V --secrets V
        --enso --experimental --ignore --new --test --docs --disable V --quick --reset --optional""",
    "packages are installed by pip, and only when they change": """
        --uv --uv-symlink --requirements --reinstall --skip-requirements --skip-extensions --skip-git --skip-torch
        --skip-all --skip-env""",
}


def foreign_flags() -> Iterator[tuple[str, bool, str]]:
    """Yield each accepted flag without effect: its name, whether it takes a value, and the reason."""
    for reason, text in REASONS.items():
        words = text.split()
        for word, following in zip(words, [*words[1:], "--"], strict=True):
            if word != "V":
                yield word, following == "V", reason


def add_foreign_flags(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` accept them, unseen in its help; the names of those given collect in ``foreign``."""
    parser.set_defaults(foreign=())
    for name, takes_value, _ in foreign_flags():
        parser.add_argument(name, action=_Collect, nargs=None if takes_value else 0, dest="foreign",
                            help=argparse.SUPPRESS, default=argparse.SUPPRESS)


def explain(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return one line for each of ``names``, in the order given, without repeats."""
    reasons = {name: reason for name, _, reason in foreign_flags()}
    return tuple(f"{name} has no effect: {reasons[name]}." for name in dict.fromkeys(names))


class _Collect(argparse.Action):
    """Remember that a flag was given and drop its value."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object,
                 option_string: str | None = None) -> None:
        namespace.foreign = (*namespace.foreign, option_string)
