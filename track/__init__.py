"""Follow every object through a video.

    from track import Detector, Tracker, draw, frames, show
    detector, tracker = Detector(), Tracker()
    for frame in frames("street.mp4"):          # webcam index, file, folder, URL
        tracks = tracker.update(detector(frame.image), time=frame.time)
        show(draw(frame.image, tracks))

A detector finds boxes in each frame, a GRU motion model predicts where each object goes, and the tracker decides
which box is whose. Boxes are xyxy pixels, time is seconds, images are uint8 RGB (3, H, W).
"""

from track.detector import Detector
from track.draw import draw
from track.structures import Detections, Frame, Tracks
from track.tracker import Tracker
from track.video import frames
from track.window import show

__all__ = ["Detections", "Detector", "Frame", "Tracker", "Tracks", "draw", "frames", "show"]
