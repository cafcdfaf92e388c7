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

from track.association import Candidates
from track.draw import Colour, colour_of
from track.structures import Frame, Tracks
from track.tracker import Reasons
from track.window import has_display

BEST, SIGMAS, JPEG_QUALITY = 3, 2.0, 75  # affinities in a label; from a predicted edge to the uncertain one
STARTING = 20  # seconds at most
GREY: Colour = (170, 170, 170)


class Viewer:
    """Frames and their reasons in Rerun: `viewer.write(frame, tracks, tracker.reasons, categories)` for each in order.

    path: the .rrd file to write, for `rerun FILE.rrd` to show; None: the viewer's window opens. ValueError where the
    file cannot be written or the viewer cannot be started.
    """

    def __init__(self, path: Path | None) -> None:
        self.recording = rr.RecordingStream("track")
        self.recording.set_log_time_enabled(False)
        self.recording.set_log_tick_enabled(False)
        try:
            _spawn(self.recording) if path is None else self.recording.save(path, _layout())
        except (RuntimeError, OSError) as error:
            raise ValueError(f"viewer: {str(error).strip().splitlines()[0]}") from error

    def write(self, frame: Frame, tracks: Tracks, reasons: Reasons, categories: Sequence[str]) -> None:
        """Show a frame, its tracks and what they were decided by; categories: names of the labels.

        Hovering shows of a prediction, and of the larger rectangle of its uncertainty, which detections it may be, of
        a detection whose it may be. The table has all affinities, those of the pairs bold.
        """
        ids, classes, seen = tracks.ids.tolist(), tracks.labels.tolist(), reasons.detections
        names = [f"{categories[label]} {i}" for label, i in zip(classes, ids, strict=True)]
        live, expected = [colour_of(i) for i in reasons.ids.tolist()], _prediction_labels(reasons)
        self.recording.set_time("time", duration=frame.time)
        self.recording.set_time("frame", sequence=frame.number)
        for entity, content in {
            "picture/image": rr.Image(frame.image.permute(1, 2, 0).contiguous().numpy()).compress(JPEG_QUALITY),
            "picture/tracks": _boxes(tracks.boxes, names, [colour_of(i) for i in ids]),
            "picture/detections": _boxes(seen.boxes, _detection_labels(reasons)),
            "picture/predictions": _outlines(reasons.candidates.boxes, expected, live),
            "picture/uncertainty": _outlines(_uncertain(reasons.candidates), expected, live),
            "affinity": rr.TextDocument(_table(reasons), media_type=rr.MediaType.MARKDOWN),
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
        origin="picture",
        overrides={
            "picture/image": rrb.EntityBehavior(interactive=False),
            "picture/tracks": rr.Boxes2D.from_fields(radii=line, show_labels=True),
            "picture/detections": rr.Boxes2D.from_fields(radii=line, show_labels=False, colors=GREY),
            "picture/predictions": rr.LineStrips2D.from_fields(radii=line, show_labels=False),
            "picture/uncertainty": rr.LineStrips2D.from_fields(radii=thin, show_labels=False),
        },
    )
    views = rrb.Horizontal(picture, rrb.TextDocumentView(origin="affinity"), column_shares=[3, 1])
    return rrb.Blueprint(views, rrb.TimePanel(timeline="time"))


def _uncertain(candidates: Candidates) -> Tensor:
    """(T, 4) xyxy pixels: predicted boxes with each edge `SIGMAS` of its own, the centre's and half the size's, out."""
    centre, size = candidates.sigma.split(2, 1)
    reach = SIGMAS * torch.hypot(centre, size / 2)
    return candidates.boxes + torch.cat([-reach, reach], 1)


def _prediction_labels(reasons: Reasons) -> list[str]:
    """For each live track `7, 0.03 s | #2: +3.20, #0: -0.41 | takes #2`: id, seconds unseen, best detections, fate."""
    fates = {track: f"takes #{row}" for track, row in _pairs(reasons)}
    best = _best(reasons.decision.affinity, [f"#{row}" for row in range(len(reasons.detections))])
    rows = enumerate(zip(reasons.ids.tolist(), reasons.candidates.missed.tolist(), best, strict=True))
    return [f"{i}, {unseen:.2f} s | {text} | {fates.get(track, 'takes none')}" for track, (i, unseen, text) in rows]


def _detection_labels(reasons: Reasons) -> list[str]:
    """For each detection `#2 0.87 | 7: +3.20, 12: -0.41 | taken by 7`: row, score, best tracks, fate."""
    ids = reasons.ids.tolist()
    fates = dict.fromkeys(reasons.decision.newcomers.tolist(), "new")
    fates |= {row: f"taken by {ids[track]}" for track, row in _pairs(reasons)}
    rows = enumerate(zip(reasons.detections.scores.tolist(), _best(reasons.decision.affinity.T, ids), strict=True))
    return [f"#{row} {score:.2f} | {text} | {fates.get(row, 'left')}" for row, (score, text) in rows]


def _best(affinity: Tensor, names: Sequence[object]) -> list[str]:
    """The names of the columns with the largest affinities in each row, and these."""
    best = affinity.topk(min(BEST, len(names)), 1)
    rows = (zip(*row, strict=True) for row in zip(best.values.tolist(), best.indices.tolist(), strict=True))
    return [", ".join(f"{names[i]}: {v:+.2f}" for v, i in row if v > -torch.inf) or "none possible" for row in rows]


def _table(reasons: Reasons) -> str:
    """Markdown: a row for each live track, a column for each detection, bold where they are paired."""
    cells = [[f"{v:+.2f}" if v > -torch.inf else "" for v in row] for row in reasons.decision.affinity.tolist()]
    for track, row in _pairs(reasons):
        cells[track][row] = f"**{cells[track][row]}**"
    columns, newcomers = range(len(reasons.detections)), reasons.decision.newcomers.tolist()
    rows = [["", *(f"#{row} new" if row in newcomers else f"#{row}" for row in columns)], ["---"] * (1 + len(columns))]
    rows += [[str(i), *values] for i, values in zip(reasons.ids.tolist(), cells, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _pairs(reasons: Reasons) -> list[tuple[int, int]]:
    return list(zip(reasons.decision.tracks.tolist(), reasons.decision.detections.tolist(), strict=True))


def _boxes(boxes: Tensor, labels: Sequence[str], colours: Sequence[Colour] | None = None) -> rr.Boxes2D:
    centres, sizes = box_convert(boxes, "xyxy", "cxcywh").split(2, 1)
    return rr.Boxes2D(centers=centres.numpy(), sizes=sizes.numpy(), labels=labels, colors=colours)


def _outlines(boxes: Tensor, labels: Sequence[str], colours: Sequence[Colour]) -> rr.LineStrips2D:
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(-1, 5, 2)  # and back to the first
    return rr.LineStrips2D(corners.numpy(), labels=labels, colors=colours)
