"""The learned tracker without torch and without grutrack: numpy, scipy, onnxruntime and the file of `grutrack export`.

    grutrack export output=tracker.onnx
    python numpy_tracker.py tracker.onnx MOT17-02/det/det.txt tracks.txt 30

tracks every frame of a MOTChallenge detection file, of 30 frames per second, and writes a MOTChallenge result file.
"""

import json
import sys

import numpy as np
import onnxruntime
from scipy.optimize import linear_sum_assignment


class Tracker:
    """The tracks of one video: `ids, boxes = tracker.update(boxes, scores, elapsed=seconds)` for each frame in order.

    classes: labels are 0 to classes - 1. The other options are those of `grutrack predict`.
    """

    def __init__(self, model, classes=1, min_score=0.1, min_hits=2, max_age=2.0, min_new_track=0.5):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the arrays are too small to share
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.columns = {name: slice(*ends) for name, ends in json.loads(metadata["columns"]).items()}
        existence = json.loads(metadata["existence"])
        self.min_score, self.min_hits, self.max_age = min_score, min_hits, max_age
        self.min_start = min(min_new_track, existence["min_silent"])  # probability from which a track starts, silent
        self.min_log_odds = np.log(max(min_new_track, 1e-6) / max(1 - min_new_track, 1e-6))  # to be reported
        self.hysteresis = existence["hysteresis"]
        self.rows = np.zeros((0, self.columns["class_logits"].start + classes), np.float32)  # one for each track
        self.level = np.zeros(3, np.float32)  # of the scores so far
        self.ids = np.zeros(0, np.int64)  # 0 until the track is reported
        self.next_id = 1
        self.is_first = True

    def update(self, boxes, scores, labels=None, elapsed=1 / 30, affine=None):
        """Ids (N,) and boxes (N, 4) of the tracks that were detected in this frame.

        boxes: (D, 4) xyxy pixels. scores, labels: (D,). elapsed: seconds since the frame before. affine: (2, 3) camera
        motion, from the previous frame's pixels to this frame's.
        """
        used = scores >= self.min_score
        inputs = {
            "tracks": self.rows,
            "elapsed": np.float32([0 if self.is_first else elapsed]),
            "affine": np.eye(2, 3, dtype=np.float32) if affine is None else np.float32(affine),
            "boxes": np.float32(boxes[used]),
            "scores": np.float32(scores[used]),
            "labels": np.zeros(used.sum(), np.int64) if labels is None else np.int64(labels[used]),
            "min_hits": np.float32([1 if self.is_first else self.min_hits]),
            "level": self.level,
        }
        rows, pairs, affinity, updated, new_track, initiated, self.level = self.session.run(None, inputs)
        chosen = assign(pairs, affinity, len(rows), len(new_track))
        rows[pairs[chosen, 0]] = updated[chosen]
        starts = new_track >= self.min_start
        starts[pairs[chosen, 1]] = False
        alive = self.are_alive(rows)
        self.rows = np.concatenate([rows[alive], initiated[starts]])
        self.ids = np.concatenate([self.ids[alive], np.zeros(starts.sum(), np.int64)])
        real = self.are_real()
        first_time = real & (self.ids == 0)
        self.ids[first_time] = self.next_id + np.arange(first_time.sum())
        self.next_id += first_time.sum()
        self.is_first = False
        reported = real & (self.column("seconds") == 0)
        return self.ids[reported], self.rows[reported, self.columns["box"]]

    def are_alive(self, rows):
        """(T,) whether tracks go on: unconfirmed ones end when they are missed once."""
        seconds = self.column("seconds", rows)
        return (seconds == 0) | (self.column("confirmed", rows) > 0) & (seconds <= self.max_age)

    def are_real(self):
        """(T,) which tracks may be reported: those that were before need less, as do those of the first frame."""
        margin = np.where((self.ids > 0) | self.is_first, self.hysteresis, -self.hysteresis)
        return (self.column("confirmed") > 0) & (self.column("log_odds") + margin >= self.min_log_odds)

    def column(self, name, rows=None):
        """(T,) a column of one number."""
        return (self.rows if rows is None else rows)[:, self.columns[name].start]


def assign(pairs, affinity, tracks, detections):
    """(M,) which pairs are matched, each track and each detection once: those of the largest sum of affinities."""
    table, number = np.zeros((tracks, detections)), np.full((tracks, detections), -1)
    table[tuple(pairs.T)] = affinity
    number[tuple(pairs.T)] = np.arange(len(pairs))
    chosen = number[linear_sum_assignment(table, maximize=True)]
    return chosen[chosen >= 0]


def main(model, detection_file, result_file, frame_rate=30.0):
    """Track a MOTChallenge file: rows `frame, -1, left, top, width, height, score`, frames and pixels from 1."""
    table = np.loadtxt(detection_file, delimiter=",", ndmin=2, dtype=np.float64)
    boxes = np.concatenate([table[:, 2:4], table[:, 2:4] + table[:, 4:6]], 1) - 1
    tracker = Tracker(model)
    with open(result_file, "w") as results:
        for frame in range(1, int(table[:, 0].max()) + 1):
            rows = table[:, 0] == frame
            ids, tracked = tracker.update(boxes[rows], table[rows, 6], elapsed=1 / float(frame_rate))
            for identity, (x1, y1, x2, y2) in zip(ids, tracked, strict=True):
                results.write(f"{frame},{identity},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},1,-1,-1,-1\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
