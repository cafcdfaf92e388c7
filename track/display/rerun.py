"""The Rerun viewer (https://rerun.io): each frame with the evidence of its association, to see why an id switched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rerun as rr
import rerun.blueprint as rrb
import torch
from torch import Tensor
from torchvision.ops import box_convert

from track.checkpoint import first_line
from track.display.draw import Colour, colour_of
from track.display.window import has_display
from track.structures import TrackedFrame, class_name
from track.tracking.association import TrackPredictions
from track.tracking.tracker import AssociationTrace, Tracker

BEST_COUNT = 3  # affinities in a label
SIGMAS = 2.0  # standard deviations from a predicted edge to the rectangle of its uncertainty
JPEG_QUALITY = 75
START_TIMEOUT = 20  # seconds
GREY: Colour = (170, 170, 170)


class RerunViewer:
    """A sink that shows each frame in Rerun, together with the evidence its association was based on.

    path: the .rrd file to write, to be opened by `rerun FILE.rrd`; None opens the viewer's window instead. tracker: the
    pipeline's. label_names: the class name of each label. Raises ValueError if the file cannot be written or the viewer
    cannot be started.
    """

    def __init__(self, path: Path | None, tracker: Tracker, label_names: Sequence[str]) -> None:
        self.tracker, self.label_names = tracker, list(label_names)
        self.recording = rr.RecordingStream("track")
        self.recording.set_log_time_enabled(False)
        self.recording.set_log_tick_enabled(False)
        try:
            _spawn(self.recording) if path is None else _save(self.recording, path)
        except (RuntimeError, OSError) as error:
            raise ValueError(f"viewer: {first_line(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, result: TrackedFrame) -> None:
        """Show a frame, its tracks and how they were associated.

        Hovering over a prediction, or over the rectangle of its uncertainty, lists its best detections; hovering over a
        detection lists its best tracks. The table holds all affinities, those of the matches in bold.
        """
        trace = self.tracker.trace
        assert trace is not None  # the tracker has processed this frame
        frame, tracks, detections = result.frame, result.tracks, trace.detections
        ids = tracks.ids.tolist()
        names = [class_name(label, self.label_names) for label in tracks.labels.tolist()]
        captions = [f"{name} {i}" for name, i in zip(names, ids, strict=True)]
        colours = [colour_of(i) for i in trace.ids.tolist()]
        prediction_labels = _prediction_labels(trace)
        self.recording.set_time("time", duration=frame.time)
        self.recording.set_time("frame", sequence=frame.number)
        for entity, content in {
            "frame/image": rr.Image(frame.image.permute(1, 2, 0).contiguous().numpy()).compress(JPEG_QUALITY),
            "frame/tracks": _boxes(tracks.boxes, captions, [colour_of(i) for i in ids]),
            "frame/detections": _boxes(torch.from_numpy(detections.boxes), _detection_labels(trace)),
            "frame/predictions": _outlines(torch.from_numpy(trace.predictions.boxes), prediction_labels, colours),
            "frame/uncertainty": _outlines(_uncertain_boxes(trace.predictions), prediction_labels, colours),
            "affinity": rr.TextDocument(_affinity_table(trace), media_type=rr.MediaType.MARKDOWN),
        }.items():
            self.recording.log(entity, content, strict=True)

    def close(self) -> None:
        """Finish the file, or leave the viewer's window open with what was shown; a second call does nothing."""
        self.recording.disconnect()


def _save(recording: rr.RecordingStream, path: Path) -> None:
    path.open("wb").close()  # raises like `save` if that fails, without Rerun's own warning
    recording.save(path, _layout())


def _spawn(recording: rr.RecordingStream) -> None:
    """Start the viewer installed beside this Python, bound to the loopback address, and wait until it answers."""
    if not has_display():
        raise RuntimeError("no display to open rerun on; a file.rrd needs none")
    program = shutil.which("rerun", path=str(Path(sys.executable).parent)) or "rerun"
    detached: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    subprocess.Popen([program, "--bind", "127.0.0.1", "--hide-welcome-screen"], **detached)  # rr.spawn binds to 0.0.0.0
    recording.connect_grpc(default_blueprint=_layout())
    recording.flush(timeout_sec=START_TIMEOUT)


def _layout() -> rrb.Blueprint:
    """The image beside the table of affinities.

    Constant components are set here instead of logged: hovering lists an entity's components only if three are logged.
    """
    line, thin = rr.Radius.ui_points(1.0), rr.Radius.ui_points(0.5)
    image_view = rrb.Spatial2DView(
        origin="frame",
        overrides={
            "frame/image": rrb.EntityBehavior(interactive=False),
            "frame/tracks": rr.Boxes2D.from_fields(radii=line, show_labels=True),
            "frame/detections": rr.Boxes2D.from_fields(radii=line, show_labels=False, colors=GREY),
            "frame/predictions": rr.LineStrips2D.from_fields(radii=line, show_labels=False),
            "frame/uncertainty": rr.LineStrips2D.from_fields(radii=thin, show_labels=False),
        },
    )
    views = rrb.Horizontal(image_view, rrb.TextDocumentView(origin="affinity"), column_shares=[3, 1])
    return rrb.Blueprint(views, rrb.TimePanel(timeline="time"))


def _uncertain_boxes(predictions: TrackPredictions) -> Tensor:
    """(T, 4) xyxy pixels: the predicted boxes with each edge moved out by `SIGMAS` standard deviations of its position.

    An edge is the centre plus or minus half the size, so its variance is the centre's plus a quarter of the size's.
    """
    centre, size = torch.from_numpy(predictions.sigma).split(2, 1)
    margin = SIGMAS * torch.hypot(centre, size / 2)
    return torch.from_numpy(predictions.boxes) + torch.cat([-margin, margin], 1)


def _prediction_labels(trace: AssociationTrace) -> list[str]:
    """For each live track `7, 0.03 s | #2: +3.20, #0: -0.41 | matched to #2`: id, age, best detections, outcome.

    The age is that of its last detection, in seconds.
    """
    outcomes = {track: f"matched to #{row}" for track, row in _matched_pairs(trace)}
    best = _best(_affinities(trace), [f"#{row}" for row in range(len(trace.detections.boxes))])
    ages = trace.predictions.time_since_update.tolist()
    return [
        f"{identity}, {age:.2f} s | {affinities} | {outcomes.get(track, 'unmatched')}"
        for track, (identity, age, affinities) in enumerate(zip(trace.ids.tolist(), ages, best, strict=True))
    ]


def _detection_labels(trace: AssociationTrace) -> list[str]:
    """For each detection `#2 0.87 | 7: +3.20, 12: -0.41 | matched to 7`: row, score, best tracks, outcome."""
    ids = trace.ids.tolist()
    outcomes = dict.fromkeys(trace.matches.new_tracks.tolist(), "new")
    outcomes |= {row: f"matched to {ids[track]}" for track, row in _matched_pairs(trace)}
    best = _best(_affinities(trace).T, ids)
    scores = trace.detections.scores.tolist()
    return [
        f"#{row} {score:.2f} | {affinities} | {outcomes.get(row, 'unmatched')}"
        for row, (score, affinities) in enumerate(zip(scores, best, strict=True))
    ]


def _best(affinity: Tensor, names: Sequence[object]) -> list[str]:
    """For each row of affinities (R, C) the names of its largest columns, with their values."""
    best = affinity.topk(min(BEST_COUNT, len(names)), 1)
    rows = (zip(*row, strict=True) for row in zip(best.values.tolist(), best.indices.tolist(), strict=True))
    return [", ".join(f"{names[i]}: {v:+.2f}" for v, i in row if v > -torch.inf) or "none possible" for row in rows]


def _affinity_table(trace: AssociationTrace) -> str:
    """The affinities in Markdown: one row per live track, one column per detection, matches in bold."""
    cells = [[f"{v:+.2f}" if v > -torch.inf else "" for v in row] for row in _affinities(trace).tolist()]
    for track, row in _matched_pairs(trace):
        cells[track][row] = f"**{cells[track][row]}**"
    columns, new_tracks = range(len(trace.detections.boxes)), trace.matches.new_tracks.tolist()
    rows = [["", *(f"#{row} new" if row in new_tracks else f"#{row}" for row in columns)], ["---"] * (1 + len(columns))]
    rows += [[str(i), *values] for i, values in zip(trace.ids.tolist(), cells, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _affinities(trace: AssociationTrace) -> Tensor:
    """(T, D) of all pairs, -inf where no match was possible."""
    return torch.from_numpy(trace.matches.table(len(trace.ids), len(trace.detections.boxes)))


def _matched_pairs(trace: AssociationTrace) -> list[tuple[int, int]]:
    return list(zip(trace.matches.tracks.tolist(), trace.matches.detections.tolist(), strict=True))


def _boxes(boxes: Tensor, labels: Sequence[str], colours: Sequence[Colour] | None = None) -> rr.Boxes2D:
    centres, sizes = box_convert(boxes, "xyxy", "cxcywh").split(2, 1)
    return rr.Boxes2D(centers=centres.numpy(), sizes=sizes.numpy(), labels=labels, colors=colours)


def _outlines(boxes: Tensor, labels: Sequence[str], colours: Sequence[Colour]) -> rr.LineStrips2D:
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(-1, 5, 2)  # and back to the first
    return rr.LineStrips2D(corners.numpy(), labels=labels, colors=colours)
