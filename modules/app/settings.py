"""The settings in force, kept in ``config.json`` under the names that A1111's file uses."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modules.core import codec
from modules.core.errors import DarkroomError, Forbidden, InvalidRequest
from modules.core.settings import Settings, check_value, setting_infos, with_values
from modules.library.writing import write_json

logger = logging.getLogger(__name__)

CheckListed = Callable[[str, Any], Any]


def as_given(choices: str, value: Any) -> Any:
    """Accept any value of a listed choice."""
    return value


class SettingsStore:
    """The current snapshot of ``Settings`` and its file. Thread-safe.

    ``check_listed(choices, value)`` returns a value of a setting whose choices are a list (``checkpoints``,
    ``vaes``, ``samplers``) in its proper spelling, or raises a ``DarkroomError``. Keys of the file that are no
    settings here are kept as they are.
    """

    def __init__(self, path: Path, check_listed: CheckListed = as_given, *, frozen: bool = False) -> None:
        self.path = path
        self._check_listed = check_listed
        self._frozen = frozen
        self._lock = threading.RLock()
        self._listeners: tuple[Callable[[Settings], None], ...] = ()
        self._file = read_config(path)
        self._settings = settings_of(self._file)

    def get(self) -> Settings:
        """Return the settings in force."""
        return self._settings

    def listen(self, listener: Callable[[Settings], None]) -> None:
        """Call ``listener`` with the new settings after each change."""
        with self._lock:
            self._listeners += (listener,)

    def update(self, values: Mapping[str, Any], *, by_api: bool = False) -> Settings:
        """Check and apply ``values``, write the file, tell the listeners and return the new settings.

        All or nothing. Raises ``InvalidRequest`` for an unknown name or a bad value, ``NotFound`` for a model that
        is not there, ``Forbidden`` where settings are frozen or, ``by_api``, where one is restricted, ``DiskFull``.
        """
        self.check_writable()
        if by_api:
            self._refuse_restricted(values)
        with self._lock:
            settings = with_values(self._settings, self._listed(values))
            content = {**self._file, **codec.encode(settings)}
            write_json(self.path, content)
            self._file, self._settings = content, settings
            listeners = self._listeners
        for listener in listeners:
            listener(settings)
        return settings

    def check_writable(self) -> None:
        """Raise ``Forbidden`` where settings are frozen; whatever else is kept on disk for all users asks, too."""
        if self._frozen:
            raise Forbidden("Settings are frozen.", "Start the program without --freeze-settings to change them.")

    def for_request(self, overrides: Mapping[str, Any]) -> Settings:
        """Return the settings with ``overrides`` for one request applied; see ``override_warnings`` for the others.

        Raises ``InvalidRequest`` or ``NotFound`` for a bad value of a setting that can be overridden.
        """
        infos = setting_infos()
        usable = {name: value for name, value in overrides.items() if name in infos and infos[name].per_picture}
        return with_values(self._settings, self._listed(usable))

    def _listed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        infos = setting_infos()
        return {
            name: self._check_choice(str(infos[name].choices), check_value(name, value))
            if name in infos and isinstance(infos[name].choices, str) else value
            for name, value in values.items()
        }

    def _check_choice(self, choices: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._check_listed(choices, item) for item in value)
        return self._check_listed(choices, value) if value else value

    def _refuse_restricted(self, values: Mapping[str, Any]) -> None:
        infos, current = setting_infos(), codec.encode(self._settings)
        for name, value in values.items():
            if name in infos and infos[name].restricted and value != current[name]:
                raise Forbidden(f"The setting {name!r} cannot be changed through the API.",
                                "Change it on the Settings page.")


def override_warnings(overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence for each name that one request cannot override."""
    infos = setting_infos()
    unknown = [f"There is no setting {name!r}; it was ignored." for name in overrides if name not in infos]
    general = [f"The setting {name!r} does not belong to one picture; it was ignored."
               for name in overrides if name in infos and not infos[name].per_picture]
    return (*unknown, *general)


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Return settings from a file's values; unusable ones are reported in the log and take their defaults."""
    usable = {}
    for item in dataclasses.fields(Settings):
        if item.name not in values:
            continue
        try:
            usable[item.name] = check_value(item.name, values[item.name])
        except InvalidRequest as error:
            logger.warning("%s The default is used.", error.message)
    return dataclasses.replace(Settings(), **usable)


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of ``path``, empty where there is none.

    A file that cannot be read as a JSON object is moved aside (``config.json.damaged-<time>``) with a warning.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"))
        if isinstance(content, dict):
            return content
        reason = "it holds no JSON object"
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        reason = str(error)
    except OSError as error:
        raise DarkroomError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    os.replace(path, aside)
    logger.warning("%s could not be read (%s). It is now %s, and the defaults are used.", path, reason, aside.name)
    return {}
