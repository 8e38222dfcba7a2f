"""The rules of docs/ARCHITECTURE.md as functions from source files to complaints."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 500, 80, 8

WORKBENCHES = {"engine", "upscaling", "merging", "training"}
PAGE_LIBRARIES = {"gradio", "gradio_client", "fastapi", "starlette", "uvicorn"}
MODEL_LIBRARIES = {
    "torch", "torchsde", "torchvision", "spandrel", "diffusers", "transformers", "accelerate", "xformers",
}
MODEL_MODULES = {"safetensors.torch"}
OWN_LIBRARIES = {"core": set[str](), "launcher": set[str](), "prompts": {"lark"}}

FORBIDDEN_STEMS = {"util", "utils", "helper", "helpers", "manager", "managers", "misc"}
FORBIDDEN_CLASS = re.compile(r"(Manager|Helper|Helpers|Utils)$")
# Assembled from parts so that this file does not complain about itself.
FORBIDDEN_TEXT = re.compile("|".join([
    "/wo" + "rk/", r"(?<![\w.])/ro" + "ot/", r"(?<![\w.])/ho" + "me/[a-z]", "/op" + "t/(wheels|pypi)",
    r"\.lib" + "rary/",
    r"https?://[a-z.]*(py" + "pi|np" + "mjs|pythonho" + r"sted|yarnp" + r"kg|deb" + r"ian)\.",
]))
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".js", ".css", ".html", ".json", ".yaml", ".yml", ".sh", ""}
SKIPPED_FOLDERS = {"venv", "outputs", "models", "node_modules", "__pycache__", "embeddings"}


@dataclass(frozen=True)
class Imported:
    """One import: the full dotted name, its line, whether it runs when the file is imported or is for types alone."""

    name: str
    line: int
    top_level: bool
    types_only: bool


@dataclass(frozen=True)
class Source:
    """A Python file of the project, ``path`` relative to its root."""

    root: Path
    path: Path

    @cached_property
    def text(self) -> str:
        return (self.root / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @cached_property
    def module(self) -> str:
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def imports(self) -> tuple[Imported, ...]:
        return tuple(_imports(self, self.tree, True, False))

    @property
    def package(self) -> str:
        """The package under ``modules``, such as ``engine``; empty elsewhere."""
        parts = self.path.with_suffix("").parts
        return parts[1] if parts[0] == "modules" and len(parts) > 1 else ""

    def at(self, line: int, complaint: str) -> str:
        return f"{self.path.as_posix()}:{line}: {complaint}"


def python_files(root: Path, *folders: str) -> tuple[Source, ...]:
    """Return the Python files below ``folders`` of ``root`` (or that are such files), in order."""
    found = []
    for folder in folders:
        start = root / folder
        found += [start] if start.is_file() else sorted(start.rglob("*.py"))
    return tuple(Source(root, path.relative_to(root)) for path in found if not SKIPPED_FOLDERS & set(path.parts[:-1]))


def read_layers(page: str) -> frozenset[tuple[str, str]]:
    """Return the pairs (importing package, imported package) that the block ``layers`` of ``page`` allows."""
    block = re.search(r"^```layers\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    if block is None:
        raise ValueError("docs/ARCHITECTURE.md has no block of layers")
    allowed = set()
    for line in block[1].splitlines():
        rows = [re.findall(r"\w+", row) for row in line.split("→")]
        for i, row in enumerate(rows):
            allowed |= {(high, low) for high in row for below in rows[i + 1:] for low in below}
    return frozenset(allowed)


def layer_complaints(sources: tuple[Source, ...], allowed: frozenset[tuple[str, str]]) -> list[str]:
    """Complain of imports between packages of ``modules`` that no line of the contract allows."""
    known = {name for pair in allowed for name in pair}
    complaints = [source.at(1, f"package {source.package} is not in the contract") for source in sources
                  if source.package and source.package not in known and len(source.path.parts) > 2]
    for source in sources:
        for item in source.imports:
            target = item.name.split(".")[1] if item.name.startswith("modules.") else ""
            if not target or target == source.package or target == "__version__":
                continue
            if source.package and target in known and (source.package, target) not in allowed:
                complaints.append(source.at(item.line, f"{source.package} imports {target}"))
    return complaints


def extension_complaints(sources: tuple[Source, ...]) -> list[str]:
    """Complain of extensions that import another part of the program than ``modules.plugin`` and themselves."""
    complaints = []
    for source in sources:
        if source.path.parts[0] != "extensions":
            continue
        own = ".".join(source.path.parts[:2])
        for item in source.imports:
            first = item.name.split(".")[0]
            mine = item.name == own or item.name.startswith(own + ".")
            plugin = re.match(r"modules\.plugin(\.|$)", item.name)
            if first in ("modules", "extensions", "tests") and not mine and not plugin:
                complaints.append(source.at(item.line, f"an extension imports {item.name}"))
    return complaints


def library_complaints(sources: tuple[Source, ...]) -> list[str]:
    """Complain of libraries imported where the contract does not have them."""
    complaints = []
    for source in sources:
        for item in source.imports:
            library = item.name.split(".")[0]
            heavy = library in MODEL_LIBRARIES or any(item.name.startswith(name) for name in MODEL_MODULES)
            if library in PAGE_LIBRARIES and source.package != "web":
                complaints.append(source.at(item.line, f"{library} is imported outside web"))
            elif heavy and not _may_import_models(source, item):
                where = "at the top" if item.top_level and not item.types_only else "here"
                complaints.append(source.at(item.line, f"{library} may not be imported {where}"))
            elif _is_foreign(source, library):
                complaints.append(source.at(item.line, f"{source.package} may not use {library}"))
    return complaints


def cycle_complaints(sources: tuple[Source, ...]) -> list[str]:
    """Complain of modules that import each other in a circle, imports inside functions included."""
    names = {source.module for source in sources}
    graph = {source.module: {target for item in source.imports if not item.types_only
                             if (target := _resolve(item.name, names)) and target != source.module}
             for source in sources}
    return [f"import cycle: {' -> '.join(cycle)}" for cycle in _cycles(graph)]


def size_complaints(sources: tuple[Source, ...]) -> list[str]:
    """Complain of long files, long functions and long lists of parameters."""
    complaints = []
    for source in sources:
        lines = source.text.count("\n")
        if lines > MAX_FILE_LINES:
            complaints.append(source.at(1, f"{lines} lines, more than {MAX_FILE_LINES}"))
        for node in _functions(source.tree):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                complaints.append(source.at(node.lineno, f"{node.name} has {length} lines"))
            if (count := _parameters(node)) > MAX_PARAMETERS:
                complaints.append(source.at(node.lineno, f"{node.name} has {count} parameters"))
    return complaints


def name_complaints(sources: tuple[Source, ...]) -> list[str]:
    """Complain of names that say nothing, and of ``global``."""
    complaints = []
    for source in sources:
        if {part.lower() for part in source.path.with_suffix("").parts} & FORBIDDEN_STEMS:
            complaints.append(source.at(1, "the name says nothing about what is inside"))
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Global):
                complaints.append(source.at(node.lineno, "global"))
            if isinstance(node, ast.ClassDef) and FORBIDDEN_CLASS.search(node.name):
                complaints.append(source.at(node.lineno, f"class {node.name}"))
    return complaints


def text_complaints(root: Path) -> list[str]:
    """Complain of paths of one machine and of addresses of package registries in any text of the project."""
    complaints = []
    for path in _texts(root):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if match := FORBIDDEN_TEXT.search(line):
                complaints.append(f"{path.relative_to(root).as_posix()}:{number}: {match[0]}")
    return complaints


def _texts(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.name == ".git":  # a file, in a second work tree
            continue
        if path.is_dir():
            hidden = path.name.startswith((".", "venv")) and path.name not in (".ci", ".github")
            if path.name not in SKIPPED_FOLDERS and not hidden:
                yield from _texts(path)
        elif path.is_file() and path.suffix in TEXT_SUFFIXES and path.stat().st_size < 1_000_000:
            yield path


def _imports(source: Source, node: ast.AST, top_level: bool, types_only: bool) -> Iterator[Imported]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Imported(alias.name, child.lineno, top_level, types_only)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(source, child)
            for alias in child.names:
                yield Imported(f"{base}.{alias.name}", child.lineno, top_level, types_only)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from _imports(source, ast.Module([statement], []), top_level, True)
            for statement in child.orelse:
                yield from _imports(source, ast.Module([statement], []), top_level, types_only)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(source, child, top_level and not inside, types_only)


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = source.path.with_suffix("").parts[:-1]
    base = package[:len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _may_import_models(source: Source, item: Imported) -> bool:
    if source.package in WORKBENCHES | {"runtime"} or source.path.as_posix() == "modules/sampling/noise.py":
        return True
    inside = source.package in ("families", "adapters", "plugin") or source.path.parts[0] == "extensions"
    return inside and (item.types_only or not item.top_level)


def _is_foreign(source: Source, library: str) -> bool:
    allowed = OWN_LIBRARIES.get(source.package)
    return allowed is not None and library not in {"modules", *allowed} and library not in sys.stdlib_module_names


def _resolve(name: str, names: set[str]) -> str:
    if name in names:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in names else ""


def _cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module):], module])
            return
        if module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, [*path, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = node.args
    names = [item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [item.arg for item in (arguments.vararg, arguments.kwarg) if item]
    return len([name for i, name in enumerate(names) if not (i == 0 and name in ("self", "cls"))])
