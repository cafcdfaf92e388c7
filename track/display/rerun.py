"""The Rerun viewer (https://rerun.io): each frame beside what it was decided by, to see why an identity switched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rerun as rr
import rerun.blueprint as rrb
import torch
from torch import Tensor
from torchvision.ops import box_convert

from track.display.draw import Colour, colour_of
from track.display.window import has_display
from track.structures import TrackedFrame
from track.tracking.association import TrackPredictions
from track.tracking.tracker import AssociationTrace, Tracker

BEST, SIGMAS, JPEG_QUALITY = 3, 2.0, 75  # affinities in a label; from a predicted edge to the uncertain one
STARTING = 20  # seconds at most
GREY: Colour = (170, 170, 170)


class RerunViewer:
    """A sink that shows frames, and what their association was decided on, in Rerun.

    path: the .rrd file to write, for `rerun FILE.rrd` to show; None: the viewer's window opens. tracker: the pipeline's.
    label_names: the class name of each label. Raises ValueError where the file cannot be written or the viewer cannot be
    started.
    """

    def __init__(self, path: Path | None, tracker: Tracker, label_names: Sequence[str]) -> None:
        self.tracker, self.label_names = tracker, list(label_names)
        self.recording = rr.RecordingStream("track")
        self.recording.set_log_time_enabled(False)
        self.recording.set_log_tick_enabled(False)
        try:
            _spawn(self.recording) if path is None else self.recording.save(path, _layout())
        except (RuntimeError, OSError) as error:
            raise ValueError(f"viewer: {str(error).strip().splitlines()[0]}") from error

    def write(self, result: TrackedFrame) -> None:
        """Show a frame, its tracks and how they were associated.

        Hovering over a prediction, or over the larger rectangle of its uncertainty, lists the detections that it may
        be; over a detection, the tracks. The table has all affinities, those of the matches in bold.
        """
        trace = self.tracker.trace
        assert trace is not None  # the frame was tracked
        frame, tracks, detections = result.frame, result.tracks, trace.detections
        ids = tracks.ids.tolist()
        names = [f"{self.label_names[label]} {i}" for label, i in zip(tracks.labels.tolist(), ids, strict=True)]
        colours = [colour_of(i) for i in trace.ids.tolist()]
        predicted = _prediction_labels(trace)
        self.recording.set_time("time", duration=frame.time)
        self.recording.set_time("frame", sequence=frame.number)
        for entity, content in {
            "frame/image": rr.Image(frame.image.permute(1, 2, 0).contiguous().numpy()).compress(JPEG_QUALITY),
            "frame/tracks": _boxes(tracks.boxes, names, [colour_of(i) for i in ids]),
            "frame/detections": _boxes(detections.boxes, _detection_labels(trace)),
            "frame/predictions": _outlines(trace.predictions.boxes, predicted, colours),
            "frame/uncertainty": _outlines(_uncertain(trace.predictions), predicted, colours),
            "affinity": rr.TextDocument(_table(trace), media_type=rr.MediaType.MARKDOWN),
        }.items():
            self.recording.log(entity, content, strict=True)


def _spawn(recording: rr.RecordingStream) -> None:
    """Start the viewer that is installed beside this Python, for this machine alone, and wait until it answers."""
    if not has_display():
        raise RuntimeError("no display to open rerun on; a file.rrd needs none")
    program = shutil.which("rerun", path=str(Path(sys.executable).parent)) or "rerun"
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    subprocess.Popen([program, "--bind", "127.0.0.1", "--hide-welcome-screen"], **silent)  # rr.spawn binds to 0.0.0.0
    recording.connect_grpc(default_blueprint=_layout())
    recording.flush(timeout_sec=STARTING)


def _layout() -> rrb.Blueprint:
    """Picture and table. What never changes is set here: hovering lists components only where three are logged."""
    line, thin = rr.Radius.ui_points(1.0), rr.Radius.ui_points(0.5)
    picture = rrb.Spatial2DView(
        origin="frame",
        overrides={
            "frame/image": rrb.EntityBehavior(interactive=False),
            "frame/tracks": rr.Boxes2D.from_fields(radii=line, show_labels=True),
            "frame/detections": rr.Boxes2D.from_fields(radii=line, show_labels=False, colors=GREY),
            "frame/predictions": rr.LineStrips2D.from_fields(radii=line, show_labels=False),
            "frame/uncertainty": rr.LineStrips2D.from_fields(radii=thin, show_labels=False),
        },
    )
    views = rrb.Horizontal(picture, rrb.TextDocumentView(origin="affinity"), column_shares=[3, 1])
    return rrb.Blueprint(views, rrb.TimePanel(timeline="time"))


def _uncertain(candidates: TrackPredictions) -> Tensor:
    """(T, 4) xyxy pixels: predicted boxes with each edge `SIGMAS` of its own, the centre's and half the size's, out."""
    centre, size = candidates.sigma.split(2, 1)
    reach = SIGMAS * torch.hypot(centre, size / 2)
    return candidates.boxes + torch.cat([-reach, reach], 1)


def _prediction_labels(trace: AssociationTrace) -> list[str]:
    """For each live track `7, 0.03 s | #2: +3.20, #0: -0.41 | takes #2`: id, seconds unseen, best detections, fate."""
    fates = {track: f"takes #{row}" for track, row in _pairs(trace)}
    best = _best(trace.matches.affinity, [f"#{row}" for row in range(len(trace.detections))])
    rows = enumerate(zip(trace.ids.tolist(), trace.predictions.time_since_update.tolist(), best, strict=True))
    return [f"{i}, {unseen:.2f} s | {text} | {fates.get(track, 'takes none')}" for track, (i, unseen, text) in rows]


def _detection_labels(trace: AssociationTrace) -> list[str]:
    """For each detection `#2 0.87 | 7: +3.20, 12: -0.41 | taken by 7`: row, score, best tracks, fate."""
    ids = trace.ids.tolist()
    fates = dict.fromkeys(trace.matches.new_tracks.tolist(), "new")
    fates |= {row: f"taken by {ids[track]}" for track, row in _pairs(trace)}
    rows = enumerate(zip(trace.detections.scores.tolist(), _best(trace.matches.affinity.T, ids), strict=True))
    return [f"#{row} {score:.2f} | {text} | {fates.get(row, 'left')}" for row, (score, text) in rows]


def _best(affinity: Tensor, names: Sequence[object]) -> list[str]:
    """The names of the columns with the largest affinities in each row, and these."""
    best = affinity.topk(min(BEST, len(names)), 1)
    rows = (zip(*row, strict=True) for row in zip(best.values.tolist(), best.indices.tolist(), strict=True))
    return [", ".join(f"{names[i]}: {v:+.2f}" for v, i in row if v > -torch.inf) or "none possible" for row in rows]


def _table(trace: AssociationTrace) -> str:
    """Markdown: a row for each live track, a column for each detection, bold where they are paired."""
    cells = [[f"{v:+.2f}" if v > -torch.inf else "" for v in row] for row in trace.matches.affinity.tolist()]
    for track, row in _pairs(trace):
        cells[track][row] = f"**{cells[track][row]}**"
    columns, new_tracks = range(len(trace.detections)), trace.matches.new_tracks.tolist()
    rows = [["", *(f"#{row} new" if row in new_tracks else f"#{row}" for row in columns)], ["---"] * (1 + len(columns))]
    rows += [[str(i), *values] for i, values in zip(trace.ids.tolist(), cells, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _pairs(trace: AssociationTrace) -> list[tuple[int, int]]:
    return list(zip(trace.matches.tracks.tolist(), trace.matches.detections.tolist(), strict=True))


def _boxes(boxes: Tensor, labels: Sequence[str], colours: Sequence[Colour] | None = None) -> rr.Boxes2D:
    centres, sizes = box_convert(boxes, "xyxy", "cxcywh").split(2, 1)
    return rr.Boxes2D(centers=centres.numpy(), sizes=sizes.numpy(), labels=labels, colors=colours)


def _outlines(boxes: Tensor, labels: Sequence[str], colours: Sequence[Colour]) -> rr.LineStrips2D:
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(-1, 5, 2)  # and back to the first
    return rr.LineStrips2D(corners.numpy(), labels=labels, colors=colours)
