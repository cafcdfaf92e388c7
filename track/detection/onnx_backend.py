"""Run a detector's convolutions in ONNX Runtime (https://onnxruntime.ai): the same boxes, faster on a CPU."""

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

from track.checkpoint import install_command

MAX_SIZES = 3  # image sizes worth the seconds that an export takes; torch computes the others


def use_onnx_runtime(network: FasterRCNN | RetinaNet | FCOS | SSD) -> None:
    """Run a network's backbone and heads in ONNX Runtime from now on, in place; for inference on a CPU.

    They are exported at the first image of each size, which takes some seconds. Raises ValueError if ONNX Runtime is
    not installed.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)]:
        raise ValueError(f"detector.onnx=true: {', '.join(missing)} is missing, {install_command('onnx')}")
    network.backbone = OnnxModule(network.backbone)
    if isinstance(network, FasterRCNN):
        network.rpn.head = OnnxModule(network.rpn.head)
    else:
        network.head = OnnxModule(network.head)


class OnnxModule(nn.Module):
    """A module that runs in ONNX Runtime, exported once for each of the first sizes of its inputs.

    Its input and output are tensors in any nesting of lists and dicts.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.sessions: dict[tuple[torch.Size, ...], tuple[Any, TreeSpec]] = {}

    def forward(self, inputs: Any) -> Any:
        """The module's output."""
        tensors, spec = tree_flatten(inputs)
        sizes = tuple(tensor.shape for tensor in tensors)
        if sizes not in self.sessions:
            if len(self.sessions) >= MAX_SIZES or self._is_partial_batch(sizes):
                return self.module(inputs)
            self.sessions[sizes] = self._export(tensors, spec)
        session, output_spec = self.sessions[sizes]
        feed = {
            one.name: tensor.contiguous().numpy() for one, tensor in zip(session.get_inputs(), tensors, strict=True)
        }
        return tree_unflatten([torch.from_numpy(array) for array in session.run(None, feed)], output_spec)

    def _is_partial_batch(self, sizes: tuple[torch.Size, ...]) -> bool:
        """Whether a session differs only in the batch size: a video's last batch is not worth another export."""
        return any(all(a[1:] == b[1:] for a, b in zip(sizes, known, strict=True)) for known in self.sessions)

    def _export(self, tensors: list[Tensor], spec: TreeSpec) -> tuple[Any, TreeSpec]:
        """A session for inputs of these sizes, and the nesting of its outputs."""
        import onnxruntime

        flat, file = _FlatModule(self.module, spec), io.BytesIO()
        for verbose in ("torch.onnx", "onnx_ir", "onnxscript"):
            logging.getLogger(verbose).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(flat, tuple(tensors), dynamo=True, verbose=False)
        program.save(file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch needs the cores in between
        session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
        return session, flat.output_spec


class _FlatModule(nn.Module):
    """The module as a function from tensors to a list of tensors; `output_spec` is how they are nested."""

    def __init__(self, module: nn.Module, spec: TreeSpec) -> None:
        super().__init__()
        self.module, self.spec = module, spec
        self.output_spec: TreeSpec

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        outputs, self.output_spec = tree_flatten(self.module(tree_unflatten(list(tensors), self.spec)))
        return outputs
