"""Write the packaged graphs of `track.engine` anew, after a change of what they compute.

    python scripts/export_graphs.py

Needs the extra `onnx`. `tests/engine` compares the graphs with the modules that they are made from.
"""

from __future__ import annotations

from torch import nn

from track.engine.compiled import GRAPHS, graph_name
from track.engine.exporting import export_graph
from track.tracking.graph_network import Score, load_graph
from track.tracking.motion import Advance, Initiate, Kalman, Move, Observe
from track.tracking.recurrent import load_motion


def packaged_modules() -> list[nn.Module]:
    """The modules that have a packaged graph: those of the packaged weights' architecture, and the Kalman filter's."""
    learned = load_motion()
    steps = [step(motion) for motion in (Kalman(), learned) for step in (Initiate, Move, Advance, Observe)]
    return [*steps, Score(learned, load_graph())]


if __name__ == "__main__":
    for old in GRAPHS.glob("*.onnx"):
        old.unlink()
    for module in packaged_modules():
        (GRAPHS / graph_name(module)).write_bytes(export_graph(module))
        print(GRAPHS / graph_name(module))
