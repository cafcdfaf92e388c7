"""Weights on disk: safetensors with what each network needs to be built again. Nothing in the file is executed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

Options = dict[str, Any]
Network = TypeVar("Network", bound=nn.Module)


def save(path: Path, networks: Mapping[str, tuple[nn.Module, Options]]) -> Path:
    """Write networks by name, each with the options it was built from; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, (network, _) in networks.items()
        for key, value in network.state_dict().items()
    }
    save_file(tensors, path, {name: json.dumps(options) for name, (_, options) in networks.items()})
    return path


def load(path: str | Path, name: str, build: Callable[..., Network]) -> tuple[Network, Options]:
    """The network of that name, built by `build(**options)` and frozen, and its options. ValueError where the file has
    no such one."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if name not in metadata:
                raise ValueError(f"it has {', '.join(metadata) or 'no networks'}")
            keys = [key for key in file.keys() if key.startswith(f"{name}.")]  # noqa: SIM118 - not a dict
            tensors = {key.removeprefix(f"{name}."): file.get_tensor(key) for key in keys}
        options: Options = json.loads(metadata[name])
        network = build(**options)
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, TypeError, KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: expected the weights of a {name}, as scripts/train.py writes them ({reason})"
        ) from error
    return network.eval().requires_grad_(False), options


def holds(path: str | Path, name: str) -> bool:
    """Whether the file has a network of that name. ValueError where it is no safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            return name in (file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected weights as scripts/train.py writes them ({error})") from error
