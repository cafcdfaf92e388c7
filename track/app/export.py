"""Write the learned tracker as one ONNX file, which runs without torch: see docs/export.md."""

from __future__ import annotations

import inspect
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from track import __version__
from track.app.console.cli import command
from track.checkpoint import atomic_write, install_command, weights_file
from track.engine.exporting import export_model
from track.tracking.existence import HYSTERESIS, MIN_SILENT, load_existence
from track.tracking.graph_network import load_graph
from track.tracking.recurrent import SHIPPED, load_motion
from track.tracking.step import COLUMNS, INPUTS, OUTPUTS, TrackerStep
from track.tracking.tracker import Tracker

FORMAT = "1"  # of inputs, outputs and metadata
OPTIONS = ("min_score", "min_hits", "max_age", "min_new_track")  # of `Tracker`, left to the program that runs the file
TOLERANCE = 1e-3


@command("export")
def main(cfg: DictConfig) -> None:
    """Print the file that was written, with its inputs and outputs."""
    output = Path(str(cfg.output))
    weights = SHIPPED if cfg.weights is None else Path(weights_file(str(cfg.weights)))
    _check_output(output, weights, cfg.overwrite)
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise ValueError(f"export: {', '.join(missing)} is missing, {install_command('onnx')}")
    step = TrackerStep(load_motion(weights), load_graph(weights), load_existence(weights))
    print("exporting: half a minute or more", flush=True)
    model = documented_model(step, weights.name)
    content = model.SerializeToString(deterministic=True)
    _check_results(content, step)
    with atomic_write(output) as temporary:
        temporary.write_bytes(content)
    for title, values in (("inputs", INPUTS), ("outputs", OUTPUTS)):
        print(f"{title}:")
        for name, (axes, meaning) in values.items():
            shape = ", ".join(map(str, axes))
            print(f"  {name:10} ({shape}): {meaning}")
    print(f"written: {output} ({len(content) / 1e6:.1f} MB)")


def documented_model(step: TrackerStep, weights: str) -> Any:
    """The step as `onnx.ModelProto` whose inputs, outputs and metadata say what they are; weights: their name."""
    axes = ({name: one for name, (one, _) in values.items()} for values in (INPUTS, OUTPUTS))
    model = export_model(step, step.example(), *axes)
    for values, named in ((model.graph.input, INPUTS), (model.graph.output, OUTPUTS)):
        for value, (_, meaning) in zip(values, named.values(), strict=True):
            value.doc_string = meaning
    model.producer_name, model.producer_version = "grutrack", __version__
    model.graph.name = "tracker_step"
    model.doc_string = inspect.getdoc(TrackerStep) or ""
    defaults = inspect.signature(Tracker).parameters
    silent, hysteresis = (1.0, 0.0) if step.existence is None else (MIN_SILENT, HYSTERESIS)
    documents = {
        "format": FORMAT,
        "grutrack": __version__,
        "weights": weights,
        "units": "boxes: xyxy pixels from 0; times: seconds; affinity, log_odds and class_logits: nats; scores: 0 to 1",
        "columns": json.dumps(step.columns()),
        "meaning": json.dumps(COLUMNS),
        "state": json.dumps(step.state_columns()),
        "options": json.dumps({name: defaults[name].default for name in OPTIONS}),
        "existence": json.dumps({"min_silent": silent, "hysteresis": hysteresis}),
    }
    del model.metadata_props[:]
    for key, text in documents.items():
        model.metadata_props.add(key=key, value=text)
    return model


def _check_output(output: Path, weights: Path, overwrite: bool) -> None:
    """Raise ValueError, before the seconds that an export takes, for a file that may not be written."""
    if output.is_dir():
        raise ValueError(f"output: {output}: expected a file, it is a folder")
    if output.exists() and weights.exists() and output.samefile(weights):
        raise ValueError(f"output: {output}: expected another file than the weights")
    if output.exists() and not overwrite:
        raise ValueError(f"output: {output}: exists; overwrite=true replaces it")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output: {output}: expected a file that can be written ({error.strerror})") from error


def _check_results(content: bytes, step: TrackerStep) -> None:
    """Raise ValueError unless ONNX Runtime computes what torch does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = step.example()
    with torch.inference_mode():
        expected = step(*inputs)
    given = session.run(None, {name: array.numpy() for name, array in zip(INPUTS, inputs, strict=True)})
    for name, a, b in zip(OUTPUTS, given, expected, strict=True):
        if a.shape != b.shape or not np.allclose(a, b.numpy(), rtol=TOLERANCE, atol=TOLERANCE):
            raise ValueError(f"export: ONNX Runtime and torch differ in {name}: other versions of torch or onnxscript?")
