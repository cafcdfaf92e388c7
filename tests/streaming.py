"""A moving white square, a detector that finds it, and an MJPEG stream of it on loopback that can be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import torch

from track.media.images import to_jpeg
from track.structures import Detections, Frame

SPEED = 60.0  # pixels per second


def scene(time: float) -> torch.Tensor:
    """The image at a time: a white square that moves to the right."""
    image = torch.full((3, 120, 320), 40, dtype=torch.uint8)
    left = round(20 + SPEED * time)
    image[:, 40:80, left : left + 20] = 255
    return image


def bright(frame: Frame) -> Detections:
    """Detect what is white."""
    rows, columns = (frame.image.float().mean(0) > 200).nonzero().T
    if not len(rows):
        return Detections.empty()
    box = [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    return Detections.from_rows([[*box, 0.95, 1]])


class BrightDetector:
    """`bright` as a `DetectionSource`, one frame at a time."""

    label_names = ("background", "person")
    needs_pixels = True

    def detect(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        return ((frame, bright(frame)) for frame in frames)


class MjpegServer:
    """Serves /camera.mjpg on a free port; while `silent` is set, connections stay open but no frame is sent."""

    def __init__(self, image: Callable[[], torch.Tensor], rate: float = 30.0, port: int = 0) -> None:
        self.stopped, self.silent = Event(), Event()
        mjpeg = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while not mjpeg.stopped.wait(1 / rate):
                        if not mjpeg.silent.is_set():
                            data = to_jpeg(image())
                            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                            self.wfile.write(head.encode() + data + b"\r\n")
                except OSError:
                    pass  # the client has disconnected

            def log_message(self, *args: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/camera.mjpg"
        Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def kill(self) -> None:
        """Close every connection and the port."""
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
