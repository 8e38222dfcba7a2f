"""Names, shapes and types in torch's pickled files, without torch and without unpickling.

Python's unpickler imports and calls what a file names. Here the opcodes are read one by one by a machine that knows
no import and calls nothing: tensors become ``TensorInfo``, the few harmless objects that training leaves behind
become ``Inert``, and any other name ends the reading. Opcodes: ``pickletools`` of the standard library.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, BinaryIO, cast

from modules.core.errors import InvalidModel
from modules.library.tensors import DTYPE_BITS, TensorInfo

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_MAX_READ = 16 * 1024 * 1024
_MAX_OPCODES = 1_000_000
_MAX_DEPTH = 8
_MAX_DIMENSIONS = 64
_BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, OSError,
                   ValueError, LookupError, OverflowError)
_DOWNLOAD_AGAIN = "Download the file again."
_UNSAFE = "It can run code on your computer; use a .safetensors version of the model instead."


class Inert:
    """What stands for a harmless object in a checkpoint: keeps what it was made of and does nothing with it."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args, self.kwargs, self.state = args, kwargs, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def inert_globals() -> Mapping[str, type]:
    """Return the names beside tensors that a checkpoint may contain, each with the class that stands for it.

    Official SD 1.x files hold a Lightning callback and numpy scalars, embeddings a ``ParameterDict``. The loader
    passes the pairs to ``torch.serialization.safe_globals`` as ``(class, name)``.
    """
    return _INERT


_INERT: Mapping[str, type] = MappingProxyType(dict.fromkeys(
    (
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "pytorch_lightning.callbacks.model_checkpoint",
        "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
        "torch.nn.modules.container.ParameterDict",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.dtype",
        "numpy.ndarray",
    ),
    Inert,
))

_STORAGES: Mapping[str, str] = MappingProxyType({
    "torch.FloatStorage": "F32", "torch.HalfStorage": "F16", "torch.BFloat16Storage": "BF16",
    "torch.DoubleStorage": "F64", "torch.LongStorage": "I64", "torch.IntStorage": "I32", "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8", "torch.ByteStorage": "U8", "torch.BoolStorage": "BOOL",
    "torch.ComplexFloatStorage": "C64", "torch.storage.UntypedStorage": "U8",
})
_DTYPES: Mapping[str, str] = MappingProxyType({
    "torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16", "torch.float64": "F64",
    "torch.int64": "I64", "torch.int32": "I32", "torch.int16": "I16", "torch.int8": "I8", "torch.uint8": "U8",
    "torch.uint16": "U16", "torch.uint32": "U32", "torch.uint64": "U64", "torch.bool": "BOOL",
    "torch.complex64": "C64", "torch.float8_e4m3fn": "F8_E4M3", "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ", "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch.float8_e8m0fnu": "F8_E8M0",
})
_CALLABLES = frozenset({
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.nn.parameter.Parameter",
    "torch.Size", "torch.device", "collections.OrderedDict", "_codecs.encode", "builtins.set", "builtins.bytearray",
})
SAFE_GLOBALS = frozenset({*_INERT, *_STORAGES, *_DTYPES, *_CALLABLES})


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    key: str
    elements: int


class _BoundedFile:
    """A file that refuses to be read in pieces larger than any honest checkpoint needs."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_READ:
            raise InvalidModel(f"It wants {size:,} bytes to be read at once; at most {_MAX_READ:,} are allowed.")
        data = self._file.read(size if size >= 0 else _MAX_READ + 1)
        if len(data) > _MAX_READ:
            raise InvalidModel(f"It has more than {_MAX_READ:,} bytes where a checkpoint has few.")
        return data

    def readline(self) -> bytes:
        return self._file.readline(_MAX_READ)


def read_zip(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors by name of a file that ``torch.save`` wrote as a zip archive (torch 1.6 and later).

    A ``state_dict`` inside is unwrapped. Errors as ``read_zip_object``.
    """
    return _state_dict(read_zip_object(path))


def read_zip_object(path: Path) -> Any:
    """Return the object of a zip archive of ``torch.save``: plain data, ``TensorInfo`` and ``Inert``.

    Raises ``InvalidModel`` where the archive is damaged or truncated, names anything but tensors and
    ``inert_globals``, or a tensor does not fit its storage.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(cast(IO[bytes], _BoundedFile(file))) as archive:
                return _read_archive(archive, path.name)
        except _BROKEN_ARCHIVE as error:
            raise InvalidModel(f"{path.name} is truncated or damaged: {error}.", _DOWNLOAD_AGAIN) from error


def read_legacy(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors by name of a file that torch before 1.6 wrote; errors as ``read_zip_object``."""
    return _state_dict(read_legacy_object(path))


def read_legacy_object(path: Path) -> Any:
    """Return the object of a file that torch before 1.6 wrote, as ``read_zip_object``.

    Four pickles follow each other: a magic number, the protocol, system facts, and the object.
    """
    with path.open("rb") as file:
        bounded = _BoundedFile(file)
        magic = _load(bounded, path.name)
        if magic != LEGACY_MAGIC or isinstance(magic, bool):
            raise InvalidModel(f"{path.name} is a pickle but no torch checkpoint.", _UNSAFE)
        for _ in range(2):
            _load(bounded, path.name)
        return _load(bounded, path.name)


def _read_archive(archive: zipfile.ZipFile, file_name: str) -> Any:
    entries = {info.filename: info for info in archive.infolist()}
    index = next((name for name in entries if name.endswith("data.pkl") and name.count("/") <= 1), None)
    if index is None:
        raise InvalidModel(f"{file_name} is a zip archive but no torch checkpoint.")
    folder = index.removesuffix("data.pkl")
    if f"{folder}constants.pkl" in entries:
        raise InvalidModel(f"{file_name} is a TorchScript program, not a checkpoint.")
    if entries[index].file_size > _MAX_READ:
        raise InvalidModel(f"The index of {file_name} has {entries[index].file_size:,} bytes; "
                           f"at most {_MAX_READ:,} are allowed.")

    def check(storage: _Storage) -> None:
        entry = entries.get(f"{folder}data/{storage.key}")
        expected = storage.elements * DTYPE_BITS[storage.dtype] // 8
        found = entry.file_size if entry else 0
        if found < expected:
            raise InvalidModel(f"{file_name} is truncated: storage {storage.key[:40]!r} should have {expected:,} bytes "
                               f"and has {found:,}.", _DOWNLOAD_AGAIN)

    return _load(_BoundedFile(io.BytesIO(archive.read(index))), file_name, check)


def _load(file: _BoundedFile, file_name: str, check: Callable[[_Storage], None] = lambda storage: None) -> Any:
    machine = _Machine(check)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], file))):
            if count > _MAX_OPCODES:
                raise InvalidModel("It holds more objects than any checkpoint.")
            machine.step(opcode.name, argument)
        return machine.stack[-1]
    except InvalidModel as error:
        raise InvalidModel(f"{file_name}: {error.message}", error.hint or _UNSAFE) from error
    except (ValueError, LookupError, TypeError, EOFError, OverflowError, AttributeError) as error:
        raise InvalidModel(f"{file_name} is damaged: its list of tensors cannot be read ({str(error)[:200]}).",
                           _DOWNLOAD_AGAIN) from error


class _Machine:
    """A pickle machine that builds dicts, lists, tuples, ``TensorInfo`` and ``Inert``, and nothing else."""

    def __init__(self, check: Callable[[_Storage], None]) -> None:
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._check = check

    def step(self, opcode: str, argument: Any) -> None:
        """Carry out one opcode; ``InvalidModel`` for one that no checkpoint needs."""
        if opcode in _IGNORED:
            return
        if opcode in _PUSHES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            self.stack[-count:] = [tuple(self.stack[-count:])]
        else:
            action = _ACTIONS.get(opcode)
            if action is None:
                raise InvalidModel(f"The pickle opcode {opcode} has no place in a checkpoint.")
            action(self, argument)

    def _mark(self, _: Any) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _pop_mark(self, _: Any = None) -> list[Any]:
        items, self.stack = self.stack, self._below.pop()
        return items

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_mark()

    def _tuple(self, _: Any) -> None:
        items = self._pop_mark()
        self.stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        items = self._pop_mark()
        self.stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._pop_mark()
        self.stack.append({})
        self._store(items)

    def _duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._store([key, value])

    def _set_items(self, _: Any) -> None:
        self._store(self._pop_mark())

    def _store(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if _plain(key))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_allowed(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_allowed(str(module), str(name)))

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_call(function, arguments))

    def _new_object_with_keywords(self, _: Any) -> None:
        self.stack.pop()
        self._reduce(None)

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def _persistent(self, _: Any) -> None:
        storage = _storage(self.stack.pop())
        self._check(storage)
        self.stack.append(storage)


_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_PUSHES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
})
_CONSTANTS: Mapping[str, Callable[[], Any]] = MappingProxyType({
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list,
})
_TUPLES: Mapping[str, int] = MappingProxyType({"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3})
_ACTIONS: Mapping[str, Callable[[_Machine, Any], Any]] = MappingProxyType({
    "MARK": _Machine._mark, "POP": _Machine._pop, "POP_MARK": _Machine._pop_mark, "DUP": _Machine._duplicate,
    "TUPLE": _Machine._tuple, "LIST": _Machine._list, "DICT": _Machine._dict, "FROZENSET": _Machine._tuple,
    "PUT": _Machine._put, "BINPUT": _Machine._put, "LONG_BINPUT": _Machine._put, "MEMOIZE": _Machine._memoize,
    "GET": _Machine._get, "BINGET": _Machine._get, "LONG_BINGET": _Machine._get,
    "APPEND": _Machine._append, "APPENDS": _Machine._appends, "ADDITEMS": _Machine._appends,
    "SETITEM": _Machine._set_item, "SETITEMS": _Machine._set_items,
    "GLOBAL": _Machine._global, "STACK_GLOBAL": _Machine._stack_global, "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce, "NEWOBJ_EX": _Machine._new_object_with_keywords, "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
})


def _plain(key: object) -> bool:
    # Only these are hashed: the hash of a deeply nested tuple would overflow the stack of the interpreter.
    return isinstance(key, (str, int, float, bytes, type(None), _Global))


def _allowed(module: str, name: str) -> _Global:
    full = f"{'builtins' if module == '__builtin__' else module}.{name}"
    if full not in SAFE_GLOBALS:
        raise InvalidModel(f"Unsafe: it names {full[:200]}, which is no part of a model.", _UNSAFE)
    return _Global(full)


def _call(function: object, arguments: Any) -> Any:
    name = function.name if isinstance(function, _Global) else ""
    if name.startswith("torch._utils._rebuild_tensor"):
        return _tensor(arguments)
    if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
                "torch.nn.parameter.Parameter", "torch.Size"):
        return arguments[0]
    if name == "collections.OrderedDict":
        return {key: value for key, value in (arguments[0] if arguments else ()) if _plain(key)}
    return Inert(*arguments)


def _storage(identity: Any) -> _Storage:
    kind, storage, key, _, elements = identity[:5]
    if kind != "storage" or not isinstance(storage, _Global) or not isinstance(elements, int) or elements < 0:
        raise InvalidModel("A storage of its tensors is damaged.", _DOWNLOAD_AGAIN)
    return _Storage(_STORAGES[storage.name], str(key), elements)


def _tensor(arguments: tuple[Any, ...]) -> TensorInfo:
    storage, offset, shape, strides = arguments[:4]
    explicit = next((item for item in arguments[4:] if isinstance(item, _Global) and item.name in _DTYPES), None)
    dtype = _DTYPES[explicit.name] if explicit else storage.dtype
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS or not all(map(_size, numbers)):
        raise InvalidModel("The shape of a tensor is damaged.", _DOWNLOAD_AGAIN)
    info = TensorInfo(dtype, tuple(shape))
    available = storage.elements * DTYPE_BITS[storage.dtype] // DTYPE_BITS[dtype]
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1 if info.elements else 0
    # A stride of 0 lets one element claim any shape; no checkpoint needs that and a copy of it would fill memory.
    if offset + max(reach, info.elements) > available:
        raise InvalidModel(f"A tensor of shape {list(shape)[:8]} does not fit its storage of {available:,} elements.",
                           _DOWNLOAD_AGAIN)
    return info


def _size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _state_dict(value: Any) -> dict[str, TensorInfo]:
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    tensors: dict[str, TensorInfo] = {}
    seen: set[int] = set()
    pending: list[tuple[str, Any, int]] = [("", value, 0)]
    while pending:
        name, item, depth = pending.pop()
        if isinstance(item, TensorInfo):
            tensors[name] = item
            continue
        children = _children(item)
        if children and depth < _MAX_DEPTH and id(item) not in seen:
            seen.add(id(item))
            pending.extend((f"{name}.{key}" if name else str(key), child, depth + 1) for key, child in children)
    return dict(sorted(tensors.items()))


def _children(item: Any) -> list[tuple[Any, Any]]:
    if isinstance(item, Inert) and isinstance(item.state, dict):
        item = item.state.get("_parameters")
    if isinstance(item, dict):
        return [(key, child) for key, child in item.items() if not isinstance(key, _Global)]
    return list(enumerate(item)) if isinstance(item, (list, tuple)) else []
