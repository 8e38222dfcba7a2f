"""What the extensions tab calls: the list, on and off, and what is installed or brought up to date.

Nothing is installed unseen: what is at an address is told first, with its revision, and only that revision is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse

from modules.core.errors import Forbidden, InvalidRequest
from modules.launcher import extensions, pip
from modules.launcher.downloads import is_https
from modules.launcher.extension_offer import Offer
from modules.web.pictures import FRESH
from modules.web.tabs.extensions import switch_extension
from modules.web.views import extension_views

Act = Callable[[extensions.Ask], Offer | None]


def routes(app: Any, run: extensions.Run = pip.run) -> APIRouter:
    """Return the routes under ``/extensions``; ``run`` runs pip."""
    own = APIRouter(prefix="/extensions")
    changed: dict[str, Offer] = {}
    alone = threading.Lock()

    def listed() -> dict[str, Any]:
        return {"extensions": views(app, changed), "locked": locked(app)}

    def take(act: Act, revision: str) -> dict[str, Any]:
        with alone:
            offer = act(lambda offer: is_what_was_seen(offer, revision))
        if offer is not None:
            changed[offer.id] = offer
        return listed()

    @own.get("")
    def extension_list() -> Any:
        return JSONResponse(listed(), headers=FRESH)

    @own.post("/look")
    def look(body: Annotated[dict[str, str], Body()]) -> Any:
        """Tell what is at an address, or what an installed extension's address has now."""
        return {"offer": seen(action(app, body, run))}

    @own.post("/install")
    def install(body: Annotated[dict[str, str], Body()]) -> Any:
        """Install what ``look`` told, or bring an extension to it."""
        return take(action(app, body, run), body.get("revision", ""))

    @own.post("/{extension_id}/switch")
    def switch(extension_id: str, body: Annotated[dict[str, bool], Body()]) -> Any:
        check_open(app)
        switch_extension(app, extension_id, body.get("enabled", True), changed)
        return listed()

    return own


def action(app: Any, body: dict[str, str], run: extensions.Run) -> Act:
    """Return what installs from the ``address`` in ``body`` or, where it has an ``id``, brings that up to date.

    Raises ``Forbidden`` where settings are frozen, or where others reach the program and may not bring code.
    """
    flags, root = app.flags, app.folders.root
    check_open(app)
    from_afar = extensions.is_exposed(flags)
    revision = body.get("revision", "")
    if body.get("id"):
        return lambda ask: extensions.update(root, flags, body["id"], ask, run, from_afar)
    address = body.get("address", "").strip()
    if from_afar and not is_https(address):
        raise InvalidRequest("Only addresses of https:// can be given from afar.", "Use the command line for others.")
    pinned = address if not revision or address.lower().endswith(f"@{revision}") else f"{address}@{revision}"
    return lambda ask: extensions.install(root, flags, pinned, ask, run, from_afar)


def check_open(app: Any) -> None:
    """Raise ``Forbidden`` where settings are frozen, or where others reach the program and may not bring code."""
    extensions.check_allowed(app.flags)
    app.settings.check_writable()


def locked(app: Any) -> str:
    """Return why extensions cannot be changed from the page; empty where they can."""
    try:
        check_open(app)
    except Forbidden as error:
        return str(error)
    return ""


def seen(act: Act) -> dict[str, Any] | None:
    """Return what ``act`` would install, without installing it; None where nothing is newer."""
    offers: list[Offer] = []

    def declined(offer: Offer) -> bool:
        offers.append(offer)
        return False
    act(declined)
    return asdict(offers[0]) if offers else None


def is_what_was_seen(offer: Offer, revision: str) -> bool:
    """Return True for the revision that was shown; raises ``InvalidRequest`` for another."""
    if not revision or offer.revision != revision:
        raise InvalidRequest(f"{offer.name} has changed since it was shown.", "Look at it again.")
    return True


def views(app: Any, changed: Mapping[str, Offer]) -> list[dict[str, Any]]:
    """Return all extensions; those among them that were ``changed`` run from the next start on."""
    folder = extensions.places(app.folders.root, app.flags)
    known = extension_views(app)
    for one in known:
        one["pending"] = one["pending"] or one["id"] in changed
    loaded = {one["id"] for one in known}
    disabled = app.settings.get().disabled_extensions
    new = [{"id": offer.id, "name": offer.name, "description": offer.description, "version": offer.version, "error": "",
            "enabled": name not in disabled, "pending": True}
           for name, offer in sorted(changed.items()) if name not in loaded and (folder / name).is_dir()]
    return [one | {"source": _source(folder / one["id"])} for one in known + new]


def _source(folder: Path) -> dict[str, str] | None:
    source = extensions.origin(folder)
    return asdict(source) if source else None
