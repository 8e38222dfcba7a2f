"""Settings that a request changes for itself alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.core.errors import InvalidRequest
from modules.core.settings import Settings, check_value, setting_infos, with_values


def overridden(app: Any, overrides: Mapping[str, Any]) -> Settings:
    """Return the settings in force with ``overrides`` for one request, also those of no single picture (formats).

    Raises ``InvalidRequest`` for an unknown name, a bad value or a setting that no API call may change, and
    ``NotFound`` for a model that is not there.
    """
    infos = setting_infos()
    for name in overrides:
        if name in infos and infos[name].restricted:
            raise InvalidRequest(f"settings: {name!r} cannot be changed through the API.")
    general = {name: value for name, value in overrides.items() if name not in infos or not infos[name].per_picture}
    settings: Settings = with_values(app.settings.for_request(overrides), general)
    return settings


def usable_overrides(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that are settings an API call may change, in their types; null is no override."""
    infos = setting_infos()
    return {name: check_value(name, value) for name, value in given.items()
            if name in infos and not infos[name].restricted and value is not None}


def override_warnings(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence for each override that ``usable_overrides`` leaves out."""
    infos = setting_infos()
    unknown = [f"There is no setting {name[:100]!r}; it was ignored." for name in given if name not in infos]
    locked = [f"The setting {name!r} cannot be changed through the API; it was ignored."
              for name in given if name in infos and infos[name].restricted]
    return (*unknown, *locked)
