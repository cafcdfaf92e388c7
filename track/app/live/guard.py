"""What reaches the page: requests of this host, from its own pages, of bounded size; everything else is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BODY = 4 * 2**20  # bytes of a request that uploads no file; a webcam's image has some 100 kB
UPLOAD_QUOTA = 10  # all visitors' uploads together, in files of the largest size
UPLOAD = "/upload"
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around another one.

    A page that listens on loopback answers to loopback's names only: otherwise any site that a visitor has open could
    point its own name at this machine and watch (DNS rebinding). A request that says which page it comes from must come
    from this one. Bodies state their length, which is bounded, and so is what all uploads take on the disk.

    host: the one that is listened on. folder: where uploads are kept. upload_limit: bytes of one.
    """

    def __init__(self, application: Application, host: str, folder: Path, upload_limit: int) -> None:
        self.application, self.folder, self.upload_limit = application, folder, upload_limit
        self.hosts = LOOPBACK if host in LOOPBACK else None
        self._arriving = 0  # bytes of uploads that are not on the disk yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it in one line."""
        if scope["type"] == "lifespan":
            return await self.application(scope, receive, send)
        status, reason = self._refusal(scope)
        if status == 200:
            arriving = _length(scope) if _is_upload(scope) else 0
            self._arriving += arriving
            try:
                return await self.application(scope, receive, send)
            finally:
                self._arriving -= arriving
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        body = f"{reason}\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str]:
        """A status and a reason; 200 for what may pass."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self.hosts is not None and _host_name(host) not in self.hosts:
            return 421, "expected one of this machine's own names as the host"
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "expected a request of this server's own page"
        if scope.get("method") not in ("POST", "PUT", "PATCH"):
            return 200, ""
        length = _length(scope)
        if length < 0:
            return 411, "expected a request that states its length"
        if not _is_upload(scope) and length > MAX_BODY:
            return 413, f"expected at most {MAX_BODY} bytes"
        if _is_upload(scope) and self._used() + length > UPLOAD_QUOTA * self.upload_limit:
            return 507, "the visitors' uploads take all the space that there is for them: try again later"
        return 200, ""

    def _used(self) -> int:
        used = self._arriving
        for file in self.folder.rglob("*"):
            with suppress(OSError):  # deleted meanwhile
                used += file.stat().st_size
        return used


def _is_upload(scope: Scope) -> bool:
    return scope.get("method") == "POST" and scope["path"].rstrip("/").endswith(UPLOAD)


def _length(scope: Scope) -> int:
    """The length that a request states for its body; -1 if it states none."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() and len(length) < 16 else -1


def _host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
