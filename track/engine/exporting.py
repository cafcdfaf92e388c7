"""From a torch module to a graph of ONNX operations that is given its weights when it is loaded."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn


class Compilable(Protocol):
    """A module that can be exported: it knows inputs that it can be traced with."""

    def example(self) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
        """Inputs, and for each the name of its first axis; axes of one name have the same length."""
        ...


def export_graph(module: nn.Module) -> bytes:
    """The operations of a module as an ONNX model whose weights are external, named as in the module.

    module: a `Compilable`. The lengths of its inputs' first axes are free. Needs `onnx` and `onnxscript`.
    """
    inputs, axes = cast(Compilable, module).example()
    program = _trace(module.eval(), inputs, axes)
    graph = program.model.graph
    weights = [graph.initializers.pop(name) for name in weights_of(module) if name in graph.initializers]
    for weight in weights:
        weight.const_value = None
        graph.inputs.append(weight)  # so that nothing is computed from it in advance
    program.optimize()
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]  # shapes follow from those of the inputs
    external = model.graph.input[len(inputs) :]
    del model.graph.input[len(inputs) :]
    for value, name in zip(model.graph.input, axes, strict=True):  # an input that is not read has a fixed length
        value.type.tensor_type.shape.dim[0].dim_param = name
    for value in external:
        tensor = model.graph.initializer.add(name=value.name, data_type=value.type.tensor_type.elem_type)
        tensor.dims.extend(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        tensor.data_location = tensor.EXTERNAL
        tensor.external_data.add(key="location", value="weights")
    return cast(bytes, model.SerializeToString(deterministic=True))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module, by name."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _trace(module: nn.Module, inputs: tuple[Tensor, ...], axes: tuple[str, ...]) -> Any:
    """The module as `torch.onnx.ONNXProgram`, without the exporter's talk."""
    lengths = {name: torch.export.Dim(name, min=2) for name in axes}
    shapes: Any = tuple({0: lengths[name]} for name in axes)
    kinds = {parameter.kind for parameter in inspect.signature(module.forward).parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds:  # forward(*inputs)
        shapes = (shapes,)
    silent, level = io.StringIO(), logging.root.manager.disable
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            with torch.no_grad():
                return torch.onnx.export(module, inputs, dynamo=True, dynamic_shapes=shapes, optimize=False)
        finally:
            logging.disable(level)
