"""A camera on loopback: a white square that moves right, as MJPEG over HTTP, to be killed and started again."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import torch

from track.media.images import to_jpeg
from track.structures import Detections, Frame

SPEED = 60.0  # pixels a second


def scene(at: float) -> torch.Tensor:
    """What the camera sees at a time."""
    image = torch.full((3, 120, 320), 40, dtype=torch.uint8)
    left = round(20 + SPEED * at)
    image[:, 40:80, left : left + 20] = 255
    return image


def bright(frame: Frame) -> Detections:
    """A detector of what is white."""
    rows, columns = (frame.image.float().mean(0) > 200).nonzero().T
    if not len(rows):
        return Detections.empty()
    box = [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    return Detections.from_rows([[*box, 0.95, 1]])


class Camera:
    """Serves /camera.mjpg on a port of its own choice; `silent` keeps the line open and says nothing."""

    def __init__(self, picture: Callable[[], torch.Tensor], rate: float = 30.0, port: int = 0) -> None:
        self.off, self.silent = Event(), Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while not camera.off.wait(1 / rate):
                        if not camera.silent.is_set():
                            data = to_jpeg(picture())
                            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                            self.wfile.write(head.encode() + data + b"\r\n")
                except OSError:
                    pass  # who watched has gone

            def log_message(self, *args: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/camera.mjpg"
        Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def kill(self) -> None:
        self.off.set()
        self.server.shutdown()
        self.server.server_close()
