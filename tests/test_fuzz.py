"""Every reader of files of unknown origin, on mutated files: a result or one line of ValueError, never anything else.

`make fuzz` tries many; FUZZ_CASES is their number per reader.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from track.app.console.options import check_options, quote_paths
from track.app.convert import FORMATS, detect_format
from track.checkpoint import holds
from track.datasets.annotations import coco, find_examples
from track.datasets.download import unpack
from track.detection.detector import load_detector
from track.formats.mot import (
    find_sequences,
    read_affines,
    read_detections,
    read_sequence,
    read_tracks,
)
from track.media.images import read_image
from track.media.video_file import VideoFile
from track.media.video_writer import VideoWriter
from track.tracking.graph_network import load_graph
from track.tracking.recurrent import RecurrentMotion, load_motion, save_motion

CASES = int(os.environ.get("FUZZ_CASES", "40"))
LINES = {
    "gt.txt": "1,1,10,20,30,40,1,1,0.5\n2,1,11,20,30,40,1,1,1\n2,-2,5,5,9,9,0,12,0.2\n",
    "det.txt": "1,-1,10,20,30,40,0.9,1,-1,-1\n2,-1,10.5,20,30,40,0.8,2,-1,-1\n",
    "gmc.txt": "1,1,0,0,0,1,0\n2,0.99,0.01,3,-0.01,0.99,-2\n",
    "seqinfo.ini": "[Sequence]\nname=a\nimDir=img1\nframeRate=25\nseqLength=3\nimWidth=64\nimHeight=48\nimExt=.jpg\n",
    "coco.json": '{"images":[{"id":1,"file_name":"1.jpg","width":64,"height":48}],"annotations":[{"id":1,"image_id":1,'
    '"category_id":1,"bbox":[1,2,30,40],"iscrowd":0}],"categories":[{"id":1,"name":"person"}],"videos":[]}',
    "video.json": '{"videos":[{"id":1,"name":"a","fps":10}],"categories":[{"id":1,"name":"car"}],'
    '"images":[{"id":1,"video_id":1,"frame_id":0,"file_name":"a"}],'
    '"annotations":[{"id":1,"image_id":1,"category_id":1,"bbox":[1,2,3,4],"track_id":5}]}',
    "kitti.txt": "0 1 Car 0 0 -1.5 10 20 30 40 1.5 1.6 3.9 1 2 3 -1.6\n1 1 Car 0 0 0 11 20 30 40 1 1 1 1 1 1 1 0.9\n",
    "visdrone.txt": "1,1,10,20,30,40,1,4,0,0\n2,1,11,20,30,40,0,0,0,0\n",
    "rows.csv": "frame,time,id,class,x1,y1,x2,y2,score\n1,0.0,1,car,398.0,181.0,519.0,410.0,0.98\n",
    "rows.jsonl": '{"frame":1,"time":0.0,"id":1,"class":"car","x1":1.0,"y1":2.0,"x2":3.0,"y2":4.0,"score":0.5}\n',
    "penn.txt": 'Image filename : "PNGImages/a.png"\nImage size (X x Y x C) : 64 x 48 x 3\n'
    'Bounding box for object 1 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : (10, 11) - (30, 40)\n',
}
TOKENS = [
    *("nan", "inf", "-inf", "3e38", "1e999", "-1", "0", "1e18", "99999999999999999999", "null", "{}", "[]", "", "\x00"),
    *("\ufeff", "٣", "..", "../../x", "%s", "\x1b[31m", '"', "'", ",", ",,,,", "\n", "\r\n", ";", "=", "true", "1_000"),
]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A copy with some bytes changed, cut, repeated or replaced by numbers and words that programs stumble over."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randint(1, 20)]
        elif kind == 2:
            data[at:at] = chance.choice(TOKENS).encode()
        elif kind == 3:
            end = at
            while end < len(data) and chr(data[end]).isalnum():
                end += 1
            data[at:end] = chance.choice(TOKENS).encode()
        elif kind == 4:
            del data[at:]
        else:
            data[at:at] = data[at : at + 60]
    return bytes(data)


def sequence_with(file: str) -> Callable[[Path], object]:
    """A reader of a sequence of which the mutated file is one."""

    def read(path: Path) -> object:
        folder = path.parent / "data" / "a"
        shutil.rmtree(folder.parent, ignore_errors=True)
        (folder / "gt").mkdir(parents=True)
        (folder / "gt/gt.txt").write_text(LINES["gt.txt"])
        shutil.copy(path, folder / file)
        return [sequence.truth() for sequence in find_sequences(folder.parent)]

    return read


def convert(path: Path) -> object:
    """Read by whatever format is recognised, and write every format."""
    videos = detect_format(path).read(path)
    return [FORMATS[name].write(path.parent / "out" / name, videos) for name in ("mot", "cvat", "coco", "csv", "kitti")]


def labelled(path: Path) -> object:
    """A COCO json with its image."""
    (path.parent / "1.jpg").write_bytes(png())
    return coco(path, ["person"])


def penn_fudan(path: Path) -> object:
    """A Penn-Fudan data set of one annotation."""
    root = path.parent / "PennFudanPed"
    for name in ("Annotation", "PNGImages"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(path, root / "Annotation/a.txt")
    (root / "PNGImages/a.png").write_bytes(png())
    return find_examples(root, ["person"])


def options(path: Path) -> object:
    """The lines of a file as options of predict."""
    text = path.read_bytes().decode(errors="replace").replace("\x00", "")
    return check_options("predict", quote_paths(text.splitlines()))


def frames(path: Path) -> object:
    return [frame.number for frame in VideoFile(path, report=lambda line: None)]


def png(width: int = 4, height: int = 4) -> bytes:
    """A small PNG file."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\x00" + b"abc" * width for _ in range(height)))
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def weights() -> bytes:
    """A file of a small motion model."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return save_motion(RecurrentMotion(hidden=4), Path(folder) / "a.safetensors").read_bytes()


def video() -> bytes:
    """A film of four frames."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        with VideoWriter(Path(folder) / "a.mp4", 10) as written:
            for n in range(4):
                written.write(torch.full((3, 32, 48), 40 * n, dtype=torch.uint8))
        return (Path(folder) / "a.mp4").read_bytes()


def archive() -> bytes:
    """A zip of two files."""
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a/gt/gt.txt", LINES["gt.txt"])
        made.writestr("a/seqinfo.ini", LINES["seqinfo.ini"])
    return buffer.getvalue()


READERS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], object]]] = {
    "truth": ("gt.txt", lambda: LINES["gt.txt"].encode(), lambda path: read_tracks(path, 3, truth=True)),
    "results": ("a.txt", lambda: LINES["det.txt"].encode(), lambda path: read_tracks(path, 3)),
    "detections": ("det.txt", lambda: LINES["det.txt"].encode(), lambda path: read_detections(path, 3)),
    "affines": ("gmc.txt", lambda: LINES["gmc.txt"].encode(), lambda path: read_affines(path, 3)),
    "seqinfo": ("seqinfo.ini", lambda: LINES["seqinfo.ini"].encode(), lambda path: read_sequence(path.parent)),
    "sequence": ("seqinfo.ini", lambda: LINES["seqinfo.ini"].encode(), sequence_with("seqinfo.ini")),
    "labels": ("labels.txt", lambda: b"car\nperson\n", sequence_with("gt/labels.txt")),
    "coco": ("coco.json", lambda: LINES["coco.json"].encode(), labelled),
    "coco video": ("video.json", lambda: LINES["video.json"].encode(), convert),
    "kitti": ("a.txt", lambda: LINES["kitti.txt"].encode(), convert),
    "visdrone": ("a.txt", lambda: LINES["visdrone.txt"].encode(), convert),
    "csv": ("rows.csv", lambda: LINES["rows.csv"].encode(), convert),
    "jsonl": ("rows.jsonl", lambda: LINES["rows.jsonl"].encode(), convert),
    "cvat": ("a.zip", archive, convert),
    "penn-fudan": ("a.txt", lambda: LINES["penn.txt"].encode(), penn_fudan),
    "archive": ("a.zip", archive, lambda path: unpack(path, path.parent / "out")),
    "motion weights": ("a.safetensors", weights, load_motion),
    "other weights": ("a.safetensors", weights, lambda path: (holds(path, "motion"), load_graph(path))),
    "detector weights": ("a.safetensors", weights, load_detector),
    "image": ("a.png", png, read_image),
    "video": ("a.mp4", video, frames),
    "options": (
        "a.txt",
        lambda: b"source=a.mp4\ntracker.min_hits=2\ntracker.min_score=0.1\ndetector.classes=[person]\nstride=3\n",
        options,
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_a_mutated_file_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    file, content, read = READERS[name]
    original, chance = content(), random.Random(f"{name} {os.environ.get('FUZZ_SEED', '0')}")
    path = tmp_path / file
    path.write_bytes(original)
    for _ in range(CASES):
        path.write_bytes(mutated(original, chance))
        try:
            read(path)
        except ValueError as refused:
            message = str(refused)
        except BaseException as error:
            pytest.fail(f"{type(error).__name__}: {error} for {path.read_bytes()!r}"[:2000])
        else:
            continue
        assert message.isprintable(), path.read_bytes()  # so it is one line
        assert message


@pytest.mark.parametrize(
    "name", [name for name in READERS if name not in ("image", "detector weights", "other weights")]
)
def test_the_file_that_is_mutated_is_readable_itself(name: str, tmp_path: Path) -> None:
    file, content, read = READERS[name]
    (tmp_path / file).write_bytes(content())
    read(tmp_path / file)
