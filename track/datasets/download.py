"""Public data sets from the web: downloads that go on where they broke off, archives that nobody need trust."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

CHUNK = 2**20
PATIENCE = 30.0  # seconds without a byte after which a connection has failed
INFLATION, SPARE = 20, 2**28  # an archive may grow to so many times its size, and this many bytes
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MOT_DETECTORS = re.compile(r"(MOT17-\d+)-(DPM|FRCNN|SDP)")
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Archive:
    """A file on a server. size: bytes, sha256: of its content, where they are published."""

    url: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class DataSet:
    """A public data set. page: its own web page. archives: URLs; or hub: a Hugging Face listing of them."""

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


def dataset_named(name: str) -> DataSet:
    """The data set of that name. Raises ValueError with the names that there are."""
    if name not in DATASETS:
        raise ValueError(f"dataset: expected one of {', '.join(DATASETS)}, got {name}")
    return DATASETS[name]


def hub_archives(listing: str, names: str = "") -> list[Archive]:
    """The archives in a Hugging Face repository by its tree listing (.../api/datasets/OWNER/NAME/tree/main), whose
    names match the expression `names`, with the sizes and checksums that it publishes."""
    try:
        with closing(_open(listing)) as answer:
            rows = json.load(answer)
    except (URLError, HTTPException, TimeoutError, json.JSONDecodeError) as error:
        raise ValueError(f"{listing}: expected a repository's listing ({error})") from error
    base = listing.replace("/api/", "/", 1).replace("/tree/", "/resolve/", 1).split("?")[0]
    files = [row for row in rows if row["path"].endswith(SUFFIXES) and re.search(names, row["path"])]
    if not files:
        raise ValueError(f"{listing}: expected archives ({', '.join(SUFFIXES)}), found none")
    return [Archive(f"{base}/{row['path']}", row["size"], row.get("lfs", {}).get("oid")) for row in files]


def download(
    archive: Archive, folder: Path, advance: Advance = lambda done, total: None, attempts: int = 5, pause: float = 2.0
) -> Path:
    """Fetch a file into `folder`, going on where an earlier call or connection broke off; returns its path.

    advance: called with bytes so far and altogether (0: unknown). ValueError where the server refuses, breaks off
    `attempts` times without a byte in between, or what came is not what was published.
    """
    file, part = folder / archive.name, folder / f"{archive.name}.part"
    if file.is_file():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            if _receive(archive, part, advance):
                break
            reason = "the connection ended early"
        except HTTPError as error:
            if error.code == 416:  # more is here than there: not the same file
                part.unlink(missing_ok=True)
            elif error.code < 500:
                raise ValueError(f"{archive.url}: the server refused ({error.code} {error.reason})") from error
            reason = str(error)
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(error)
        size = part.stat().st_size if part.is_file() else 0
        failed = 0 if size > before else failed + 1
        if failed == attempts:
            raise ValueError(f"{archive.url}: stopped after {size} bytes ({reason}); run again to go on")
        time.sleep(pause * failed)
    if archive.sha256 is not None and _sha256(part) != archive.sha256:
        part.unlink()
        raise ValueError(f"{archive.url}: expected the published checksum, what came was removed; run again")
    return part.rename(file)


def unpack(file: Path, folder: Path) -> None:
    """Unpack a zip or tar into `folder`. ValueError, nothing outside it being touched, where a name would leave it, an
    entry is neither file nor folder, the whole is out of proportion to the archive, or the archive is damaged."""
    budget = INFLATION * file.stat().st_size + SPARE
    try:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as pack:
                for info in _measured(file, pack.infolist(), budget):
                    pack.extract(info, folder)
        else:
            with tarfile.open(file) as tar:
                for member in _measured(file, tar, budget):
                    tar.extract(member, folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{file}: expected a whole zip or tar ({error})") from error


def lay_out(unpacked: Path, root: Path) -> int:
    """Move every sequence below `unpacked` to `root`/<split>/<sequence>, or Penn-Fudan's folder to `root` itself.

    The split is the folder above: train, val or test, numbers dropped. MOT17's three copies of a sequence become one,
    with det/dpm.txt, det/frcnn.txt and det/sdp.txt. Returns how many were found.
    """
    found = sorted({ini.parent for ini in unpacked.rglob("seqinfo.ini")})
    for folder in found:
        split = folder.parent.name.rstrip("0123456789")
        place = root / split if split in ("train", "val", "test") else root
        twin = MOT_DETECTORS.fullmatch(folder.name)
        target = place / (twin[1] if twin else folder.name)
        if twin and (folder / "det/det.txt").is_file():
            (folder / "det/det.txt").rename(folder / f"det/{twin[2].lower()}.txt")
        if twin and target.is_dir():
            for detections in (folder / "det").glob("*.txt"):
                detections.replace(target / "det" / detections.name)
            shutil.rmtree(folder)
            continue
        place.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # of an interrupted run
        folder.rename(target)
    pictures = sorted({notes.parent for notes in unpacked.rglob("Annotation") if notes.is_dir()})
    for folder in pictures:
        folder.replace(root)
    return len(found) + len(pictures)


def _receive(archive: Archive, part: Path, advance: Advance) -> bool:
    """Append what the server still has to `part`; whether all of it came."""
    have = part.stat().st_size if part.is_file() else 0
    if archive.size is not None and have == archive.size:
        return True
    with closing(_open(archive.url, have)) as answer:
        going_on = answer.status == 206
        total = (have if going_on else 0) + int(answer.headers.get("Content-Length") or 0)
        if archive.size is not None and total not in (0, archive.size):
            part.unlink(missing_ok=True)
            raise ValueError(f"{archive.url}: expected {archive.size} bytes as published, the server has {total}")
        total = archive.size or total
        with part.open("ab" if going_on else "wb") as out:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                advance(out.tell(), total)
            return out.tell() >= total


def _open(url: str, start: int = 0) -> Any:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url}: expected a http or https address")
    headers = {"User-Agent": "grutrack"} | ({"Range": f"bytes={start}-"} if start else {})
    return urlopen(Request(url, headers=headers), timeout=PATIENCE)


def _measured(file: Path, entries: Any, budget: int) -> Iterator[Any]:
    """Entries one by one, as long as they stay inside the folder and the budget."""
    for entry in entries:
        name = entry.filename if isinstance(entry, zipfile.ZipInfo) else entry.name
        path = PureWindowsPath(name)  # knows both kinds of slashes, and drives
        if path.anchor or ".." in path.parts:
            raise ValueError(f"{file}: {name} would leave the folder, nothing more is unpacked")
        budget -= entry.file_size if isinstance(entry, zipfile.ZipInfo) else entry.size
        if budget < 0:
            raise ValueError(f"{file}: unpacks to more than {INFLATION} times its size, nothing more is unpacked")
        yield entry


def _sha256(file: Path) -> str:
    stream: IO[bytes]
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
