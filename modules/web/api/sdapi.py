"""A1111's API, ``/sdapi/v1``: what its clients send and read, over the same jobs as the page."""

from __future__ import annotations

import base64
import logging
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from modules.core import codec
from modules.core.errors import NotFound
from modules.core.job import Job
from modules.core.settings import Settings, setting_infos
from modules.core.task import Task
from modules.imaging.resize import LATENT_UPSCALERS
from modules.library.files import ModelFile
from modules.library.images import read_image_info
from modules.library.infotext import parse
from modules.plugin.params import ParamInfo, param_infos
from modules.sampling.samplers import Sampler
from modules.sampling.schedules import SCHEDULES
from modules.web.answers import owner_of
from modules.web.api import extras, made, plots
from modules.web.api import sdapi_models as models
from modules.web.api.asked import Asked, asked
from modules.web.api.begun import SCRIPTS
from modules.web.api.pictures import decoded
from modules.web.api.waiting import ended
from modules.web.views import extension_views

logger = logging.getLogger(__name__)

PREFIX = "/sdapi/v1"
ORIGIN = "api"
TAGS = ["A1111's API"]
NOTHING = {"model": None}


def router(app: Any) -> APIRouter:
    """Return all routes of ``/sdapi/v1`` for ``app``."""
    routes = APIRouter(prefix=PREFIX, tags=list(TAGS), strict_content_type=False)
    for part in (_making(app), _running(app), _options(app), _models(app), _samplers(app), _scripts(app),
                 _machine(app), extras.router(app)):
        routes.include_router(part)
    return routes


def defaults() -> APIRouter:
    """Return the lists that are empty where no extension answers for them."""
    routes = APIRouter(prefix=PREFIX, tags=list(TAGS), strict_content_type=False)
    routes.include_router(_nothing_yet())
    return routes


def closed() -> APIRouter:
    """Return a route that says how to get the others."""
    routes = APIRouter(prefix=PREFIX, include_in_schema=False)

    @routes.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    def off(path: str) -> None:
        raise NotFound("The API /sdapi/v1 is off.", "Start the program with --api (or --nowebui).")

    return routes


def _part() -> APIRouter:
    return APIRouter(strict_content_type=False)


def _making(app: Any) -> APIRouter:
    routes = _part()

    @routes.post("/txt2img", responses={200: {"model": models.Txt2ImgAnswer}})
    async def txt2img(body: models.Txt2ImgRequest, request: Request) -> Response:
        """Make pictures and answer once they are there."""
        return await make(app, body, request)

    @routes.post("/img2img", responses={200: {"model": models.Txt2ImgAnswer}})
    async def img2img(body: models.Img2ImgRequest, request: Request) -> Response:
        """Make pictures from pictures and answer once they are there."""
        return await make(app, body, request)

    @routes.post("/png-info")
    def png_info(body: models.PngInfoRequest) -> models.PngInfoAnswer:
        """Read the infotext of a picture."""
        info = read_image_info(decoded(body.image, app.settings.get()))
        return models.PngInfoAnswer(info=info.infotext, items=dict(info.items), parameters=parameters_of(info.infotext))

    return routes


async def make(app: Any, body: models.GenerationRequest, request: Request) -> Response:
    """Queue what ``body`` asks for, and answer with the pictures once they are there."""
    parameters = made.echo(body)
    job = await run_in_threadpool(submit, app, body, owner_of(request))
    job = await ended(app, job.id, request)
    content = await run_in_threadpool(made.answer, job, parameters, body)
    return Response(content, media_type="application/json")


def submit(app: Any, body: models.GenerationRequest, owner: str) -> Job:
    """Queue what ``body`` asks for; settings that it wants to keep are changed first."""
    wanted: Asked = asked(body, app)
    if body.override_settings_restore_afterwards is False and wanted.overrides:
        app.settings.update(wanted.overrides, by_api=True)
    job: Job = app.submit(wanted.request, owner=owner, blocking=True, origin=ORIGIN,
                          job_id=body.force_task_id or None, warnings=wanted.warnings)
    return job


def parameters_of(infotext: str) -> dict[str, str]:
    """Return an infotext's entries by name, the prompts among them; empty for an empty text."""
    if not infotext:
        return {}
    found = parse(infotext)
    return {"Prompt": found.prompt, "Negative prompt": found.negative_prompt, **found.parameters}


def _running(app: Any) -> APIRouter:
    routes = _part()

    @routes.get("/progress")
    def progress(skip_current_image: bool = False) -> models.ProgressAnswer:
        """How far what runs is; asking makes the engine report progress and previews."""
        app.look()
        return progress_answer(app, not skip_current_image)

    @routes.post("/interrupt")
    def interrupt() -> dict[str, Any]:
        """Stop what runs."""
        app.interrupt()
        return {}

    @routes.post("/skip")
    def skip() -> None:
        """End the running batch early."""
        app.skip()

    return routes


def progress_answer(app: Any, with_image: bool) -> models.ProgressAnswer:
    """Return the progress of what runs."""
    job, asked_for = app.running(), app.asked()
    if job is None:
        return models.ProgressAnswer()
    progress = job.progress
    steps, batch_size = (0, 1) if isinstance(job.request, Task) else (job.request.steps, job.request.batch_size)
    batches = -(-(progress.pictures if progress else job.request.pictures) // batch_size)
    state = models.State(
        skipped="skip" in asked_for, interrupted="interrupt" in asked_for, stopping_generation="stop" in asked_for,
        job=job.id, job_count=batches, job_timestamp=made.timestamp(job),
        job_no=progress.picture // batch_size if progress else 0,
        sampling_step=progress.step if progress else 0,
        sampling_steps=progress.steps if progress and progress.steps else steps,
    )
    preview = app.preview(job.id) if with_image else None
    return models.ProgressAnswer(
        progress=progress.fraction if progress else 0.0, eta_relative=(progress and progress.eta) or 0.0, state=state,
        current_image=base64.b64encode(preview[1]).decode() if preview else None,
        textinfo=(progress.phase or None) if progress else None,
    )


def _options(app: Any) -> APIRouter:
    routes = _part()

    @routes.get("/options")
    def options() -> models.Options:
        """Return every setting."""
        return models.Options(**shown_options(app))

    @routes.post("/options")
    def set_options(body: Annotated[dict[str, Any], Body()]) -> None:
        """Change settings. Those that are as they were, unknown or locked are passed over."""
        changed = changed_options(body, shown_options(app))
        if changed:
            app.settings.update(changed, by_api=True)

    return routes


def shown_options(app: Any) -> dict[str, Any]:
    """Return every setting; the checkpoint is the one in use even where none was chosen."""
    settings: Settings = app.settings.get()
    checkpoints = app.library.checkpoints()
    chosen = next((one for one in checkpoints if settings.sd_model_checkpoint in (one.title, one.name)), None)
    if chosen is None and settings.sd_model_checkpoint:
        chosen = _found(app, settings.sd_model_checkpoint)
    elif chosen is None and checkpoints:
        chosen = checkpoints[0]
    shown = codec.encode(settings) | {"sd_checkpoint_hash": (chosen.sha256 or None) if chosen else None}
    return shown | ({"sd_model_checkpoint": chosen.title} if chosen else {})


def changed_options(values: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are settings, may be changed here, and differ from what is ``shown``."""
    infos = setting_infos()
    unknown = [name[:100] for name in values if name not in shown]
    if unknown:
        logger.info("Options that do not exist here were passed over: %r", unknown[:20])
    return {name: value for name, value in values.items()
            if name in infos and not infos[name].restricted and value is not None and value != shown[name]}


def _found(app: Any, text: str) -> ModelFile | None:
    try:
        checkpoint: ModelFile = app.library.find_checkpoint(text)
        return checkpoint
    except NotFound:
        return None


def _models(app: Any) -> APIRouter:
    routes = _part()

    @routes.get("/sd-models")
    def checkpoints() -> list[models.ModelItem]:
        """List the checkpoints on disk; hashes are null until they are known."""
        return [models.ModelItem(title=one.title, model_name=one.stem, hash=one.short_hash or None,
                                 sha256=one.sha256 or None, filename=one.path, config=None)
                for one in app.library.checkpoints()]

    @routes.get("/sd-vae")
    def vaes() -> list[models.VaeItem]:
        """List the VAEs on disk."""
        return [models.VaeItem(model_name=one.name, filename=one.path) for one in app.library.vaes()]

    @routes.get("/prompt-styles")
    def prompt_styles() -> list[models.StyleItem]:
        """List the styles of styles.csv."""
        return [models.StyleItem(name=one.name, prompt=one.prompt, negative_prompt=one.negative_prompt)
                for one in app.styles.all().values()]

    @routes.post("/refresh-checkpoints")
    @routes.post("/refresh-vae")
    @routes.post("/refresh-embeddings")
    @routes.post("/refresh-loras")
    def refresh() -> None:
        """Look for new files; lists are always those of the disk, so this brings the index of pictures up to date."""
        app.refresh()

    @routes.post("/unload-checkpoint")
    def unload() -> dict[str, Any]:
        """Free all loaded models once nothing runs."""
        app.unload()
        return {}

    @routes.post("/reload-checkpoint")
    def reload() -> dict[str, Any]:
        """Nothing is needed: the next picture loads its model."""
        return {}

    return routes


def _samplers(app: Any) -> APIRouter:
    routes = _part()

    @routes.get("/samplers")
    def samplers() -> list[models.SamplerItem]:
        """List the samplers."""
        return [models.SamplerItem(name=one.name, aliases=list(one.aliases), options=sampler_options(one))
                for one in app.host.samplers()]

    @routes.get("/schedulers")
    def schedulers() -> list[models.SchedulerItem]:
        """List the schedules."""
        return [models.SchedulerItem(name=one.name, label=one.label, aliases=list(one.aliases) or None,
                                     default_rho=one.default_rho, need_inner_model=one.need_inner_model)
                for one in SCHEDULES]

    @routes.get("/latent-upscale-modes")
    def latent_modes() -> list[models.NamedItem]:
        """List the upscalers of latents, for hires fix."""
        return [models.NamedItem(name=name) for name in LATENT_UPSCALERS]

    return routes


def sampler_options(sampler: Sampler) -> dict[str, str]:
    """Return what A1111 tells of a sampler, as texts."""
    told = {"scheduler": sampler.schedule, "second_order": sampler.second_order, "uses_ensd": sampler.uses_ensd,
            "brownian_noise": sampler.noise == "brownian",
            "discard_next_to_last_sigma": sampler.discard_penultimate}
    return {name: str(value) for name, value in told.items() if value}


def _nothing_yet() -> APIRouter:
    """Lists that are empty unless an extension answers these addresses; clients ask for them all the same."""
    routes = _part()

    @routes.get("/hypernetworks")
    @routes.get("/loras")
    def none() -> list[models.NamedItem]:
        """There are none."""
        return []

    @routes.get("/embeddings")
    def embeddings() -> models.EmbeddingsAnswer:
        """There are none."""
        return models.EmbeddingsAnswer(loaded={}, skipped={})

    return routes


def _scripts(app: Any) -> APIRouter:
    routes = _part()

    def plugins() -> list[Any]:
        return [found.plugin for found in app.host.found if found.plugin is not None]

    @routes.get("/scripts")
    def scripts() -> models.ScriptsAnswer:
        """List scripts, in lower case: extensions that take parameters, which ``alwayson_scripts`` takes, then those
        that ``script_name`` takes.
        """
        names = {tab: [one.name.lower() for one in plugins() if param_infos(one.Params) and tab in one.panels]
                 for tab in ("txt2img", "img2img")}
        return models.ScriptsAnswer(txt2img=[*names["txt2img"], plots.NAME],
                                    img2img=[*names["img2img"], *SCRIPTS, plots.NAME])

    @routes.get("/script-info")
    def script_info() -> list[models.ScriptInfo]:
        """List the parameters of extensions and of the X/Y/Z plot, in order."""
        found = [models.ScriptInfo(name=one.name.lower(), is_alwayson=True, is_img2img=is_img2img,
                                  args=script_arguments(one.Params))
                for is_img2img in (False, True) for one in plugins()
                if param_infos(one.Params) and ("img2img" if is_img2img else "txt2img") in one.panels]
        return [*found, *(plot_info(app, is_img2img) for is_img2img in (False, True))]

    @routes.get("/extensions")
    def extensions() -> list[models.ExtensionItem]:
        """List the extensions that were found."""
        return [models.ExtensionItem(name=one["id"], remote="", branch="", commit_hash="", version=one["version"],
                                     commit_date="", enabled=one["enabled"]) for one in extension_views(app)]

    return routes


def plot_info(app: Any, is_img2img: bool) -> models.ScriptInfo:
    """Return the arguments of the X/Y/Z plot; the types of its axes are places in the list of choices."""
    labels = list(plots.labels("img2img" if is_img2img else "txt2img", app))
    arguments = [models.ScriptArgument(label=name, value=value, choices=labels if name.endswith("_type") else None)
                 for name, value in plots.arguments().items()]
    return models.ScriptInfo(name=plots.NAME, is_alwayson=False, is_img2img=is_img2img, args=arguments)


def script_arguments(params: type) -> list[models.ScriptArgument]:
    """Return how each parameter is shown and limited."""
    defaults = params()

    def argument(name: str, info: ParamInfo) -> models.ScriptArgument:
        return models.ScriptArgument(label=info.label, value=getattr(defaults, name), minimum=info.minimum,
                                     maximum=info.maximum, step=info.step, choices=list(info.choices) or None)

    return [argument(name, info) for name, info in param_infos(params).items()]


def _machine(app: Any) -> APIRouter:
    routes = _part()

    @routes.get("/cmd-flags")
    def cmd_flags() -> dict[str, Any]:
        """Return the command line's flags; accounts show only whether there are any."""
        flags: dict[str, Any] = app.flags.public()
        return flags

    @routes.get("/memory")
    def memory() -> models.MemoryAnswer:
        """Return memory in bytes."""
        values = app.memory()
        return models.MemoryAnswer(ram=dict(values.get("ram") or {}),
                                   cuda=dict(values.get("cuda") or {"error": "unavailable"}))

    return routes
