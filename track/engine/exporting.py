"""From a torch module to a graph of ONNX operations: with its weights, or given them when it is loaded."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

Axes = tuple[str | int, ...]  # of an array: names of free lengths, and fixed ones


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
    program = _trace(module.eval(), inputs, [(name,) for name in axes])
    graph = program.model.graph
    weights = [graph.initializers.pop(name) for name in weights_of(module) if name in graph.initializers]
    for weight in weights:
        weight.const_value = None
        graph.inputs.append(weight)  # so that nothing is computed from it in advance
    with _silence():
        program.optimize()
    model = _plain_model(program)
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


def export_model(
    module: nn.Module, example: tuple[Tensor, ...], inputs: Mapping[str, Axes], outputs: Mapping[str, Axes]
) -> Any:
    """A module with its weights as `onnx.ModelProto`.

    example: inputs to trace it with, which have no more columns than others. inputs, outputs: their axes by name, in
    order; axes of one name have the same length. Needs `onnx` and `onnxscript`.
    """
    names: dict[str, Any] = {"input_names": list(inputs), "output_names": list(outputs)}
    program = _trace(module.eval(), example, list(inputs.values()), **names)
    with _silence():
        program.optimize()
    model = _plain_model(program)
    for values, named in ((model.graph.input, inputs), (model.graph.output, outputs)):
        for value, axes in zip(values, named.values(), strict=True):
            del value.type.tensor_type.shape.dim[:]
            for axis in axes:
                value.type.tensor_type.shape.dim.add(**{"dim_param" if isinstance(axis, str) else "dim_value": axis})
    return model


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module, by name."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _plain_model(program: Any) -> Any:
    """The program as `onnx.ModelProto`, without notes of where each operation comes from."""
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]  # shapes follow from those of the inputs
    return model


def _trace(module: nn.Module, inputs: tuple[Tensor, ...], axes: Sequence[Axes], **options: Any) -> Any:
    """The module as `torch.onnx.ONNXProgram`."""
    shapes: Any = tuple(_free_lengths(named, array) for named, array in zip(axes, inputs, strict=True))
    kinds = {parameter.kind for parameter in inspect.signature(module.forward).parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds:  # forward(*inputs)
        shapes = (shapes,)
    with _silence(), torch.no_grad():
        return torch.onnx.export(module, inputs, dynamo=True, dynamic_shapes=shapes, optimize=False, **options)


def _free_lengths(axes: Axes, example: Tensor) -> dict[int, Any]:
    """The axes that have a name, of any length; columns may be more than the example's, not fewer."""
    lows = [2, *example.shape[1:]]
    return {k: torch.export.Dim(axis, min=lows[k]) for k, axis in enumerate(axes) if isinstance(axis, str)}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silence the exporter's prints, warnings and logs, for the whole process."""
    silent, level = io.StringIO(), logging.root.manager.disable
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
