"""Plugins on disk: one folder with ``plugin.py`` each."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from modules.plugin import Context, Plugin


@dataclass(frozen=True)
class Found:
    """A plugin's folder, and either the plugin or why it could not be loaded."""

    id: str
    folder: Path
    plugin: Plugin | None
    error: str = ""


def plugin_folders(directories: Iterable[Path]) -> Iterator[Path]:
    """Yield folders that hold a ``plugin.py``, by name within each directory; hidden ones are passed over."""
    for directory in directories:
        if directory.is_dir():
            yield from sorted(
                item for item in directory.iterdir()
                if not item.name.startswith((".", "_")) and (item / "plugin.py").is_file()
            )


def discover(
    directories: Iterable[Path], data_dir: Path, folders: Mapping[str, tuple[Path, ...]], disabled: frozenset[str]
) -> tuple[Found, ...]:
    """Load every plugin whose folder name is not in ``disabled``; one that fails is returned with its error."""
    return tuple(
        Found(folder.name, folder, None) if folder.name in disabled
        else _load(folder, Context(folder, data_dir, folders))
        for folder in plugin_folders(directories)
    )


def _load(folder: Path, context: Context) -> Found:
    try:
        plugin = _plugin_class(_import(folder))(context)
    except Exception as error:  # noqa: BLE001 - a broken extension must not keep the program from starting
        return Found(folder.name, folder, None, f"{type(error).__name__}: {error}")
    return Found(folder.name, folder, plugin)


def _import(folder: Path) -> ModuleType:
    """Import the folder as a package of its own, so that ``from .template import …`` works inside it."""
    package = f"extensions.{folder.name}"
    for name, path, search in ((package, folder / "__init__.py", [str(folder)]),
                               (f"{package}.plugin", folder / "plugin.py", None)):
        if name == package and not path.is_file():
            spec = importlib.util.spec_from_loader(name, loader=None, is_package=True)
        else:
            spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
        if spec is None:
            raise ImportError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        if search:
            module.__path__ = search
        sys.modules[name] = module
        if spec.loader is not None:
            spec.loader.exec_module(module)
    return sys.modules[f"{package}.plugin"]


def _plugin_class(module: ModuleType) -> type[Plugin]:
    own = [
        item for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Plugin) and item is not Plugin and item.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise ImportError(f"plugin.py must define one subclass of Plugin, not {len(own)}")
    return own[0]
