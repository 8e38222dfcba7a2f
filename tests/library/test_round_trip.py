"""What the engine writes beside a picture is what pasting it asks for."""

from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.request import Request
from modules.engine.entries import parameters
from modules.library import infotext
from modules.library.paste import to_request_fields

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
PROMPT = st.from_regex(r"[a-z ,()\[\]:0-9]{0,30}", fullmatch=True).map(str.strip)
SAMPLERS, SCHEDULES = ("Euler a", "DPM++ 2M", "DDIM"), ("Automatic", "Karras", "SGM Uniform")


def share(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers as a slider gives them: an infotext keeps six digits."""
    return st.integers(round(low * 100), round(high * 100)).map(lambda number: number / 100)


requests = st.builds(
    Request, prompt=PROMPT, negative_prompt=PROMPT,
    width=st.sampled_from([512, 640]), height=st.sampled_from([512, 768]),
    steps=st.integers(1, 150), sampler=st.sampled_from(SAMPLERS), schedule=st.sampled_from(SCHEDULES),
    guidance_scale=share(1, 30), seed=st.integers(0, 2**64 - 1), tiling=st.booleans(), restore_faces=st.booleans(),
    denoising_strength=share(0, 1),
    enable_hr=st.booleans(), hr_scale=share(1, 4), hr_resize_x=st.sampled_from([0, 512, 1000]),
    hr_resize_y=st.sampled_from([0, 640]), hr_upscaler=st.sampled_from(["Latent", "Latent (nearest-exact)", "Lanczos"]),
    hr_second_pass_steps=st.integers(0, 150), hr_checkpoint=st.sampled_from(["", "b"]),
    hr_sampler=st.sampled_from(("", *SAMPLERS)), hr_schedule=st.sampled_from(("", *SCHEDULES)),
    hr_guidance_scale=share(0, 30), hr_prompt=TEXT, hr_negative_prompt=TEXT, refiner=st.sampled_from(["", "xl"]),
    refiner_switch_at=share(0.01, 1),
)


@given(requests)
@settings(deadline=None, max_examples=150)
def test_a_picture_asks_for_what_made_it(request_: Request) -> None:
    names = {"Model": "m", "VAE": "", **named("Hires checkpoint", request_.hr_checkpoint if request_.enable_hr else ""),
             **named("Refiner", request_.refiner)}
    written = parameters(request_, names, {}) | {"Seed": str(request_.seed), "Model hash": "0123456789"}
    text = infotext.format(request_.prompt, request_.negative_prompt, written)
    pasted = to_request_fields(infotext.parse(text))
    assert pasted.skipped == () and set(pasted.extras) <= {"Version"}
    assert canonical(asdict(request_) | dict(pasted.fields)) == canonical(asdict(request_))


def named(entry: str, name: str) -> dict[str, str]:
    """Return the name of a checkpoint that takes part, as it stands beside its hash."""
    return {entry: f"{name} [0123456789]"} if name else {}


def canonical(fields: dict) -> dict:
    """Return ``fields`` without what makes no difference: what is off, and what is said though it is as usual."""
    names = ("prompt", "negative_prompt", "width", "height", "steps", "sampler", "schedule", "guidance_scale", "seed",
             "tiling", "restore_faces", "enable_hr", "refiner")
    found = {name: fields[name] for name in names}
    found["refiner"] = found["refiner"].split(" [")[0]
    if fields["refiner"]:
        found["refiner_switch_at"] = fields["refiner_switch_at"]
    if not fields["enable_hr"]:
        return found
    for name in ("sampler", "schedule", "guidance_scale", "prompt", "negative_prompt"):
        found[f"hr_{name}"] = fields[f"hr_{name}"] or fields[name]
    sized = ("hr_resize_x", "hr_resize_y") if fields["hr_resize_x"] or fields["hr_resize_y"] else ("hr_scale",)
    for name in (*sized, "denoising_strength", "hr_upscaler", "hr_second_pass_steps"):
        found[name] = fields[name]
    return found | {"hr_checkpoint": fields["hr_checkpoint"].split(" [")[0]}
