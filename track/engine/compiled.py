"""Torch modules compiled for a CPU: ONNX Runtime runs the same arithmetic many times faster on small arrays.

A graph holds the operations of a module but not its weights, which are given to it when it is loaded. So the graphs of
this package fit every file of weights of the same architecture, and weights need no export. Those of another
architecture are exported once, where `onnx` and `onnxscript` are installed.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from track.checkpoint import atomic_write, first_line
from track.engine.exporting import export_graph, weights_of

GRAPHS = Path(__file__).parent / "graphs"


class Compiled:
    """A module as a function of numpy arrays: by ONNX Runtime where there is a graph for it, otherwise by torch."""

    def __init__(self, module: nn.Module) -> None:
        """module: its weights may not change any more."""
        self.module = module
        self.session = _session(module)

    def __call__(self, *inputs: np.ndarray, outputs: int | None = None) -> list[np.ndarray]:
        """The module's first `outputs` outputs, by default all."""
        if self.session is None or not all(map(len, inputs)):  # an empty array, which ONNX Runtime's kernels refuse
            return self._in_torch(inputs)[:outputs]
        session, input_names, output_names = self.session
        result: list[np.ndarray] = session.run(output_names[:outputs], dict(zip(input_names, inputs, strict=True)))
        return result

    def _in_torch(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            result = self.module(*map(torch.from_numpy, inputs))
        return [one.numpy() for one in (result if isinstance(result, tuple) else (result,))]

    def __getstate__(self) -> nn.Module:
        return self.module

    def __setstate__(self, module: nn.Module) -> None:
        self.__init__(module)  # type: ignore[misc]  # a session cannot be sent to another process


def graph_name(module: nn.Module) -> str:
    """The file name of a module's graph: its class, and a hash of what its operations depend on, weights excepted."""
    parts = [
        f"{name} {type(part).__module__}.{type(part).__qualname__} {part.extra_repr() if _is_own(part) else ''}"
        for name, part in module.named_modules()
        if not isinstance(part, nn.Dropout)
    ]
    parts += [f"{name} {tuple(tensor.shape)}" for name, tensor in weights_of(module).items()]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return f"{type(module).__name__.lower()}-{digest}.onnx"


def _session(module: nn.Module) -> tuple[Any, list[str], list[str]] | None:
    """ONNX Runtime's session of a module, and the names of inputs and outputs; None if torch has to run it."""
    graph = _graph_file(module)
    if graph is None:
        return None
    if find_spec("onnxruntime") is None:
        warnings.warn("onnxruntime is missing: pip install onnxruntime, and tracking is faster", stacklevel=2)
        return None
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the arrays are too small to share
    options.enable_mem_pattern = False  # shapes change in every frame
    options.log_severity_level = 3
    content = graph.read_bytes()
    weights = {name: tensor.numpy(force=True) for name, tensor in weights_of(module).items() if _reads(content, name)}
    options.add_external_initializers(list(weights), [ort.OrtValue.ortvalue_from_numpy(w) for w in weights.values()])
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes
        warnings.warn(f"torch tracks instead of ONNX Runtime, which says: {first_line(error)}", stacklevel=2)
        return None
    return session, [one.name for one in session.get_inputs()], [one.name for one in session.get_outputs()]


def _graph_file(module: nn.Module) -> Path | None:
    """The file of a module's graph, None if there is none."""
    if not _is_exportable(module):
        return None
    packaged = GRAPHS / graph_name(module)
    if packaged.is_file():
        return packaged
    cached = _cached(module)
    return cached if cached.is_file() else None


def make_graph(module: nn.Module) -> None:
    """Export the graph of a module to torch's cache folder, unless there is one; it takes some seconds.

    Warns if that is impossible: torch runs the module then.
    """
    if find_spec("onnxruntime") is None or not _is_exportable(module) or _graph_file(module) is not None:
        return
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        message = "these weights are of another architecture than the packaged ones"
        warnings.warn(f"{message}: pip install onnx onnxscript, and tracking is faster", stacklevel=2)
        return
    try:
        content = export_graph(module)
        with atomic_write(_cached(module)) as temporary:
            temporary.write_bytes(content)
    except Exception as error:  # torch's exporter fails in many ways, and a disk may be full
        warnings.warn(f"torch tracks instead of ONNX Runtime: {first_line(error)}", stacklevel=2)


def _is_exportable(module: nn.Module) -> bool:
    """Whether all parts are torch's or ours: a user's own motion model may do what no graph can."""
    holds_more = {name for name in vars(module) if not name.startswith("_")} != {"training"}
    return not holds_more and all(_is_own(m) or type(m).__module__.startswith("torch.") for m in module.modules())


def _cached(module: nn.Module) -> Path:
    """Where a graph is kept: the folder's name is a hash of our code and of torch's version, so that a graph of another
    version is never used."""
    root = Path(__file__).parent.parent
    files = [root / "geometry.py", *sorted((root / "engine").glob("*.py")), *sorted((root / "tracking").glob("*.py"))]
    code = hashlib.sha256(b"".join(file.read_bytes() for file in files) + torch.__version__.encode()).hexdigest()[:12]
    return Path(torch.hub.get_dir()) / "grutrack" / code / graph_name(module)


def _reads(graph: bytes, weight: str) -> bool:
    """Whether a graph reads a weight: ONNX Runtime refuses others, and tells the names only after it was given all."""
    name = weight.encode()
    return bytes([8 << 3 | 2, len(name)]) + name in graph  # the field `name` of a `TensorProto`


def _is_own(module: nn.Module) -> bool:
    return type(module).__module__.startswith("track.")
