"""The convolutions of a detector in ONNX Runtime (https://onnxruntime.ai): the same boxes, sooner on a CPU."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

SIZES = 3  # of pictures that are worth the seconds which an export takes; others are computed by torch


def use_onnx_runtime(network: FasterRCNN | RetinaNet | FCOS | SSD) -> None:
    """Let ONNX Runtime compute a network's backbone and heads from now on, in place; for evaluation on a CPU.

    Each is exported when the first picture of a size comes, which takes some seconds. ValueError where it is not
    installed.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)]:
        raise ValueError(f"detector.onnx=true: {', '.join(missing)} is missing, pip install -e '.[onnx]'")
    network.backbone = OnnxModule(network.backbone)
    if isinstance(network, FasterRCNN):
        network.rpn.head = OnnxModule(network.rpn.head)
    else:
        network.head = OnnxModule(network.head)


class OnnxModule(nn.Module):
    """A module of tensors to tensors (in lists or dicts, as it likes) that runs in ONNX Runtime, exported for each of
    the first sizes of its inputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.sessions: dict[tuple[torch.Size, ...], tuple[Any, TreeSpec]] = {}

    def forward(self, given: Any) -> Any:
        """What the module gives."""
        leaves, spec = tree_flatten(given)
        sizes = tuple(leaf.shape for leaf in leaves)
        rests = any(all(a[1:] == b[1:] for a, b in zip(sizes, known, strict=True)) for known in self.sessions)
        if sizes not in self.sessions and (rests or len(self.sessions) >= SIZES):  # rests of a batch, or too many
            return self.module(given)
        if sizes not in self.sessions:
            self.sessions[sizes] = self._export(leaves, spec)
        session, result = self.sessions[sizes]
        feed = {one.name: leaf.contiguous().numpy() for one, leaf in zip(session.get_inputs(), leaves, strict=True)}
        return tree_unflatten([torch.from_numpy(array) for array in session.run(None, feed)], result)

    def _export(self, leaves: list[Tensor], spec: TreeSpec) -> tuple[Any, TreeSpec]:
        import onnxruntime

        flat, file = _Flat(self.module, spec), io.BytesIO()
        for talkative in ("torch.onnx", "onnx_ir", "onnxscript"):
            logging.getLogger(talkative).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(flat, tuple(leaves), dynamo=True, verbose=False)
        program.save(file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the threads are others' too
        session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
        return session, flat.result


class _Flat(nn.Module):
    """The module from a row of tensors to a row of tensors; `result` is how they are nested."""

    def __init__(self, module: nn.Module, spec: TreeSpec) -> None:
        super().__init__()
        self.module, self.spec = module, spec
        self.result: TreeSpec

    def forward(self, *leaves: Tensor) -> list[Tensor]:
        found, self.result = tree_flatten(self.module(tree_unflatten(list(leaves), self.spec)))
        return found
