"""Weights on disk: safetensors files with the options each network is rebuilt from. Nothing in them is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
MAX_WIDTH = 4096  # the largest whole number among a network's options
Options = dict[str, Any]
Network = TypeVar("Network", bound=nn.Module)


def save(path: Path, networks: Mapping[str, tuple[nn.Module, Options]]) -> Path:
    """Write networks by name, each with the options it is rebuilt from, and return the path."""
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, (network, _) in networks.items()
        for key, value in network.state_dict().items()
    }
    metadata = {name: json.dumps(options) for name, (_, options) in networks.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(_in_order(serialize(tensors, metadata)))
    return path


def load(path: str | Path, name: str, build: Callable[..., Network]) -> tuple[Network, Options]:
    """The network stored under `name`, rebuilt by `build(**options)` and frozen, and its options.

    path: a file, or the name of one in the package ("gru", "crowds", "pedestrians"). Raises ValueError if the file
    cannot be read as weights or holds no such network.
    """
    try:
        with safe_open(weights_file(path), "pt") as file:
            metadata = file.metadata() or {}
            if name not in metadata:
                raise ValueError(f"the file holds {', '.join(sorted(metadata)) or 'no networks'}")
            keys = [key for key in file.keys() if key.startswith(f"{name}.")]  # noqa: SIM118 - not a dict
            tensors = {key.removeprefix(f"{name}."): file.get_tensor(key) for key in keys}
        options: Options = json.loads(metadata[name])
        if not isinstance(options, dict):
            raise ValueError("the options are no object")
        _check_tensors(tensors, options, build)
        network = build(**options)
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, TypeError, KeyError, RuntimeError, ValueError) as error:
        expected = f"expected {name} weights, as `grutrack train` writes them"
        raise ValueError(f"{path}: {expected} ({first_line(error)})") from error
    return network.eval().requires_grad_(False), options


def holds(path: str | Path, name: str) -> bool:
    """Whether the file holds a network of that name. Raises ValueError if it is not a safetensors file."""
    try:
        with safe_open(weights_file(path), "pt") as file:
            return name in (file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected weights, as `grutrack train` writes them ({error})") from error


def weights_file(path: str | Path) -> str | Path:
    """The path as it is, or the packaged file of that name if there is no other."""
    packaged = WEIGHTS_FOLDER / f"{path}.safetensors"
    return packaged if packaged.is_file() and not Path(path).exists() else path


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's type if it has no message; see `printable`."""
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])


def printable(text: object) -> str:
    """The text with control characters escaped: what is quoted from a file shall not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def install_command(extra: str) -> str:
    """The command that installs what an extra needs, by the packages' own names: this one may be no index's."""
    try:
        requirements = requires("grutrack") or []
    except PackageNotFoundError:  # imported from a folder that was never installed
        requirements = []
    of_extra = (one.partition(";") for one in requirements if f'extra == "{extra}"' in one)
    return " ".join(["pip install", *(f"'{package.strip()}'" for package, _, _ in of_extra)])


def _in_order(content: bytes) -> bytes:
    """A safetensors file whose header has its keys in order, so that equal weights are equal files."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _check_tensors(tensors: Mapping[str, Tensor], options: Options, build: Callable[..., Network]) -> None:
    """Raise ValueError for numbers that are not finite, and for options of a larger network than the file holds.

    The network is first built without memory, as the sizes in the options are as trustworthy as the file.
    """
    for key, value in options.items():
        if isinstance(value, int) and abs(value) > MAX_WIDTH:
            raise ValueError(f"{key}: expected at most {MAX_WIDTH}, got {value}")
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{key}: expected finite numbers")
    with torch.device("meta"):
        expected = build(**options).state_dict()
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    unfit = next((key for key in expected if shapes.get(key) != expected[key].shape), None)
    if unfit is not None:
        raise ValueError(f"{unfit}: expected {tuple(expected[unfit].shape)}, got {tuple(shapes.get(unfit, ()))}")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file name beside `path`, whose folder is created; on success the file replaces `path`.

    Readers find the old file or the new one, never a part of it, and an error leaves the old one. The new file has the
    permissions that the umask gives to every file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:  # a power failure shall not leave an empty file under the name
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # which a failed write, as on a full disk, does not say
        raise
