"""Download public data sets: interrupted downloads are resumed, and archives are unpacked without trusting them."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from track.checkpoint import first_line
from track.formats.cvat import EXPANSION_ALLOWANCE, MAX_EXPANSION, ZIP_ERRORS

CHUNK = 2**20  # bytes
TIMEOUT = 30.0  # seconds without a byte
MAX_LISTING = 2**26  # bytes of a repository's listing
MAX_ENTRIES = 1_000_000  # of an archive
REDIRECT_HOSTS = ("huggingface.co", "hf.co", "motchallenge.net", "upenn.edu")  # and those below them
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}  # not the archive's
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MOT_DETECTORS = re.compile(r"(MOT17-\d+)-(DPM|FRCNN|SDP)")
ReportProgress = Callable[[int, int], None]  # bytes so far, and in total (0: unknown)


@dataclass(frozen=True)
class Archive:
    """A file on a server. size: bytes; sha256: hexadecimal; both if they are published or given."""

    url: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class DataSet:
    """A public data set. page: its web page. archives: URLs; or hub: the URL of a Hugging Face listing of them."""

    name: str
    page: str
    licence: str
    archives: tuple[str, ...] = ()
    hub: str | None = None


NON_COMMERCIAL = "no commercial use"
DATASETS = {
    "mot17": DataSet(  # 5.5 GB
        "MOT17",
        "https://motchallenge.net/data/MOT17",
        f"CC BY-NC-SA 3.0 ({NON_COMMERCIAL})",
        ("https://motchallenge.net/data/MOT17.zip",),
    ),
    "mot20": DataSet(  # 5 GB
        "MOT20",
        "https://motchallenge.net/data/MOT20",
        f"CC BY-NC-SA 3.0 ({NON_COMMERCIAL})",
        ("https://motchallenge.net/data/MOT20.zip",),
    ),
    "dancetrack": DataSet(
        "DanceTrack",
        "https://github.com/DanceTrack/DanceTrack",
        f"CC BY-NC 4.0 ({NON_COMMERCIAL})",
        hub="https://huggingface.co/api/datasets/noahcao/dancetrack/tree/main",
    ),
    "sportsmot": DataSet(
        "SportsMOT",
        "https://github.com/MCG-NJU/SportsMOT",
        f"CC BY-NC 4.0 ({NON_COMMERCIAL})",
        hub="https://huggingface.co/api/datasets/MCG-NJU/SportsMOT/tree/main?recursive=true",
    ),
    "pennfudan": DataSet(  # 54 MB
        "PennFudanPed",
        "https://www.cis.upenn.edu/~jshi/ped_html",
        "for research",
        ("https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip",),
    ),
}


class ListedFile(NamedTuple):
    """A file in a repository's listing."""

    path: str
    size: int | None
    sha256: str | None


def dataset_named(name: str) -> DataSet:
    """The data set of that name in `DATASETS`. Raises ValueError with the known names."""
    if name not in DATASETS:
        raise ValueError(f"dataset: expected one of {', '.join(DATASETS)}, got {name}")
    return DATASETS[name]


def hub_archives(listing: str, names: str = "") -> list[Archive]:
    """The archives in a Hugging Face repository, with their published sizes and checksums.

    listing: the URL of its tree (.../api/datasets/OWNER/NAME/tree/main). names: a regular expression that paths must
    match. Raises ValueError if the listing cannot be read or has no such archive.
    """
    try:
        pattern = re.compile(names)
    except re.error as error:
        raise ValueError(f"names: expected a regular expression, got {names} ({error})") from error
    try:
        with closing(_open(listing)) as answer:
            rows = json.loads(answer.read(MAX_LISTING))
        files = [_listed(row) for row in rows]
    except (URLError, HTTPException, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{listing}: expected a repository's listing ({first_line(error)})") from error
    base = listing.replace("/api/", "/", 1).replace("/tree/", "/resolve/", 1).split("?")[0]
    files = [row for row in files if row.path.endswith(ARCHIVE_SUFFIXES) and pattern.search(row.path)]
    if not files:
        raise ValueError(f"{listing}: expected archives ({', '.join(ARCHIVE_SUFFIXES)}), found none")
    return [Archive(f"{base}/{quote(row.path)}", row.size, row.sha256) for row in files]


def download(
    archive: Archive,
    folder: Path,
    report: ReportProgress = lambda done, total: None,
    attempts: int = 5,
    pause: float = 2.0,
) -> Path:
    """Download a file into `folder`, resuming after an interrupted call or connection, and return its path.

    report: called with the bytes so far and in total (0: unknown). pause: seconds before the first retry; later ones
    wait longer. Raises ValueError if the server refuses, if `attempts` in a row bring no byte, if the file cannot be
    written, or if size or checksum are not the expected ones.
    """
    file, part = folder / archive.name, folder / f"{archive.name}.part"
    if file.is_file():
        return _verified(archive, file)
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(part)
        try:
            if _receive(archive, part, report):
                break
            reason = "the connection ended early"
        except HTTPError as error:
            if error.code == 416:  # more was received than the server has: another file
                part.unlink(missing_ok=True)
            elif error.code < 500:
                raise ValueError(f"{archive.url}: the server refused ({error.code} {error.reason})") from error
            reason = str(error)
        except (HTTPException, OSError) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise ValueError(f"{part}: write failed ({error.strerror}); run again to resume") from error
            reason = str(error)
        size = _size(part)
        failures = 0 if size > before else failures + 1
        if failures == attempts:
            raise ValueError(f"{archive.url}: stopped after {size} bytes ({reason}); run again to resume")
        time.sleep(pause * failures)
    part.with_suffix(".version").unlink(missing_ok=True)
    return _verified(archive, part).rename(file)


def unpack(file: Path, folder: Path) -> None:
    """Unpack a zip or tar into `folder`; nothing outside the folder is touched.

    Raises OSError if the disk is full or cannot be written. Raises ValueError if the archive is damaged or encrypted,
    if it unpacks to far more than its size or to more than `MAX_ENTRIES`, if an entry's name leaves the folder or is
    too long for it, or if an entry is neither a file nor a folder.
    """
    try:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as zip_archive:
                for info in _checked_entries(file, zip_archive.infolist()):
                    zip_archive.extract(info, folder)
        else:
            with tarfile.open(file) as tar_archive:
                for member in _checked_entries(file, tar_archive):
                    tar_archive.extract(member, folder, filter="data")
    except (*ZIP_ERRORS, tarfile.TarError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        if isinstance(error, ValueError) and str(error).startswith(f"{file}: "):
            raise
        raise ValueError(f"{file}: expected a whole zip or tar ({first_line(error)})") from error


def lay_out(unpacked: Path, root: Path) -> int:
    """Move every sequence below `unpacked` to `root`/<split>/<sequence>, or Penn-Fudan's folder to `root` itself.

    The split is the name of the folder above without numbers, if that is train, val or test. MOT17's three copies of a
    sequence become one, with det/dpm.txt, det/frcnn.txt and det/sdp.txt. Returns the number of folders moved.
    """
    sequences = sorted({ini.parent for ini in unpacked.rglob("seqinfo.ini")})
    for folder in sequences:
        _lay_out_sequence(folder, root)
    penn_fudan = sorted({annotations.parent for annotations in unpacked.rglob("Annotation") if annotations.is_dir()})
    for folder in penn_fudan:
        shutil.rmtree(root, ignore_errors=True)  # left by an interrupted run
        folder.replace(root)
    return len(sequences) + len(penn_fudan)


def _listed(row: Any) -> ListedFile:
    """A row of a listing. Raises ValueError, KeyError or TypeError for another."""
    path, size, oid = row["path"], row.get("size"), (row.get("lfs") or {}).get("oid")
    if not isinstance(path, str) or not isinstance(size, int | None) or not isinstance(oid, str | None):
        raise ValueError("a path, a size and a checksum")
    if ".." in PurePosixPath(path).parts or path.startswith("/") or not path.isprintable():
        raise ValueError(f"a path in the repository, not {path!r}")
    return ListedFile(path, size, oid)


def _lay_out_sequence(folder: Path, root: Path) -> None:
    split = folder.parent.name.rstrip("0123456789")
    parent = root / split if split in ("train", "val", "test") else root
    copy = MOT_DETECTORS.fullmatch(folder.name)
    target = parent / (copy[1] if copy else folder.name)
    if copy and (folder / "det/det.txt").is_file():
        (folder / "det/det.txt").rename(folder / f"det/{copy[2].lower()}.txt")
    if copy and target.is_dir():
        for detections in (folder / "det").glob("*.txt"):
            detections.replace(target / "det" / detections.name)
        shutil.rmtree(folder)
    else:
        parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # left by an interrupted run
        folder.rename(target)


def _receive(archive: Archive, part: Path, report: ReportProgress) -> bool:
    """Append what `part` lacks, or start again if the server has another file by now; whether it is complete."""
    have = _size(part)
    if archive.size is not None and have == archive.size:
        return True
    version_file = part.with_suffix(".version")
    version = version_file.read_text() if have and version_file.is_file() else ""
    with closing(_open(archive.url, have, version)) as answer:
        current = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        resumed = answer.status == 206
        if resumed and (_range_start(answer) != have or (version and current and current != version)):
            part.unlink()
            return False
        total = (have if resumed else 0) + int(answer.headers.get("Content-Length") or 0)
        if archive.size is not None and total not in (0, archive.size):
            part.unlink(missing_ok=True)
            raise ValueError(f"{archive.url}: expected {archive.size} bytes as published, the server has {total}")
        total = archive.size or total
        if not resumed:
            version_file.write_text(current if not current.startswith("W/") else "")
        with part.open("ab" if resumed else "wb") as out:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                report(out.tell(), total)
            return out.tell() >= total


def _range_start(answer: Any) -> int:
    """The first byte of a partial answer."""
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
    return int(match[1]) if match else -1


class _TrustedRedirects(HTTPRedirectHandler):
    """Follows redirects on the same server, and to https addresses of `REDIRECT_HOSTS`."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        is_same = (before.scheme, before.netloc) == (after.scheme, after.netloc)
        host = f".{after.hostname}"
        is_trusted = after.scheme == "https" and any(host.endswith(f".{name}") for name in REDIRECT_HOSTS)
        if not is_same and not is_trusted and not (after.scheme == "https" and before.hostname == after.hostname):
            where = f"{after.scheme}://{after.hostname}"
            raise ValueError(f"{req.full_url}: expected no redirect to {where}, only to https and known hosts")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int = 0, version: str = "") -> Any:
    """The server's answer, from byte `start` if it still has that version."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url}: expected a http or https address")
    headers = {"User-Agent": "grutrack"} | ({"Range": f"bytes={start}-"} if start else {})
    headers |= {"If-Range": version} if start and version else {}
    opener = OpenerDirector()  # the default one also knows ftp, files and data
    for handler in (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor):
        opener.add_handler(handler())
    opener.add_handler(_TrustedRedirects())
    return opener.open(Request(url, headers=headers), timeout=TIMEOUT)


def _checked_entries(file: Path, entries: Iterable[Any]) -> Iterator[Any]:
    """The entries of an archive one by one, while they stay inside the folder and within its maximum expansion."""
    budget = MAX_EXPANSION * file.stat().st_size + EXPANSION_ALLOWANCE
    for number, entry in enumerate(entries):
        if number == MAX_ENTRIES:
            raise ValueError(f"{file}: expected at most {MAX_ENTRIES} entries, nothing more is unpacked")
        zipped = isinstance(entry, zipfile.ZipInfo)
        name = entry.filename if zipped else entry.name
        path = PureWindowsPath(name)  # knows drives and both kinds of slashes
        if path.anchor or ".." in path.parts:
            raise ValueError(f"{file}: {name!r} would leave the folder, nothing more is unpacked")
        budget -= entry.file_size if zipped else entry.size
        if budget < 0:
            raise ValueError(f"{file}: unpacks to more than {MAX_EXPANSION} times its size, nothing more is unpacked")
        yield entry


def _verified(archive: Archive, file: Path) -> Path:
    """The file. Raises ValueError, and removes it, if its checksum is not the expected one."""
    if archive.sha256 is not None and checksum(file) != archive.sha256.lower():
        file.unlink()
        raise ValueError(f"{archive.url}: expected the published checksum, the download was removed; run again")
    return file


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def checksum(file: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
