"""Downloads and archives, from a server on loopback that misbehaves."""

import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.test_scripts import call

from track.datasets.download import Archive, download, hub_archives, lay_out, unpack
from track.datasets.streets import make_dataset
from track.formats.mot import find_sequences


class Server:
    """Serves `files`; each request ends after `breath` bytes. asked: path and Range of every request."""

    def __init__(self, breath: int = 2**30) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.asked.append((self.path, wanted))
                content = server.files.get(self.path.split("?")[0])
                if content is None:
                    return self.send_error(404)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
                if start >= len(content) > 0:
                    return self.send_error(416)
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                self.wfile.write(content[start : start + breath])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.http.shutdown()


@pytest.fixture
def short_of_breath() -> Iterator[Server]:
    one = Server(breath=400)
    yield one
    one.http.shutdown()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in files.items():
            pack.writestr(name, content)
    return buffer.getvalue()


def test_a_download_goes_on_where_the_connection_broke_off(short_of_breath: Server, tmp_path: Path) -> None:
    content = bytes(range(250)) * 4
    short_of_breath.files["/a.zip"] = content
    archive = Archive(f"{short_of_breath.url}/a.zip", len(content), hashlib.sha256(content).hexdigest())
    file = download(archive, tmp_path, pause=0)
    assert file.read_bytes() == content
    assert short_of_breath.asked == [("/a.zip", None), ("/a.zip", "bytes=400-"), ("/a.zip", "bytes=800-")]
    assert download(archive, tmp_path) == file
    assert len(short_of_breath.asked) == 3


def test_a_second_call_goes_on_where_the_first_gave_up(server: Server, tmp_path: Path) -> None:
    content = b"x" * 900
    (tmp_path / "a.zip.part").write_bytes(content[:500])
    with pytest.raises(ValueError, match=r"a\.zip: the server refused \(404"):
        download(Archive(f"{server.url}/a.zip"), tmp_path, pause=0)
    server.files["/a.zip"] = content
    assert download(Archive(f"{server.url}/a.zip"), tmp_path, pause=0).read_bytes() == content
    assert server.asked[-1] == ("/a.zip", "bytes=500-")


def test_a_server_that_gives_nothing_is_given_up(tmp_path: Path) -> None:
    server = Server(breath=0)
    server.files["/a.zip"] = b"x" * 10
    with pytest.raises(ValueError, match=r"a\.zip: stopped after 0 bytes \(the connection ended early\); run again"):
        download(Archive(f"{server.url}/a.zip"), tmp_path, attempts=3, pause=0)
    assert len(server.asked) == 3
    server.http.shutdown()


@pytest.mark.parametrize(
    ("size", "sha256", "refusal"),
    [
        (10, "0" * 64, "expected the published checksum"),
        (12, None, "expected 12 bytes as published, the server has 10"),
    ],
)
def test_what_is_not_what_was_published_is_removed(
    size: int, sha256: str | None, refusal: str, server: Server, tmp_path: Path
) -> None:
    server.files["/a.zip"] = b"x" * 10
    with pytest.raises(ValueError, match=refusal):
        download(Archive(f"{server.url}/a.zip", size, sha256), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_the_web_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file:///etc/hosts: expected a http or https address"):
        download(Archive("file:///etc/hosts"), tmp_path)


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leaves_the_folder_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{kind}"
    if kind == "zip":
        file.write_bytes(zipped({name: b"evil"}))
    else:
        with tarfile.open(file, "w") as pack:
            pack.addfile(tarfile.TarInfo(name))
    with pytest.raises(ValueError, match="would leave the folder"):
        unpack(file, tmp_path / "into")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [file.name]


@pytest.mark.parametrize("target", ["/etc/hosts", "../../out.txt"])
def test_a_link_out_of_the_folder_is_refused(target: str, tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, target
    with tarfile.open(tmp_path / "a.tar", "w") as pack:
        pack.addfile(link)
    with pytest.raises(ValueError, match="expected a whole zip or tar"):
        unpack(tmp_path / "a.tar", tmp_path / "into")
    assert not (tmp_path / "into/link").exists()


def test_an_archive_that_explodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("track.datasets.download.SPARE", 2**16)
    (tmp_path / "a.zip").write_bytes(zipped({"small.txt": b"x", "large.txt": bytes(2**24)}))
    with pytest.raises(ValueError, match="unpacks to more than 20 times its size"):
        unpack(tmp_path / "a.zip", tmp_path / "into")
    assert not (tmp_path / "into/large.txt").exists()


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_archive_is_refused(kept: float, tmp_path: Path) -> None:
    content = zipped({"a.bin": bytes(range(256)) * 20})
    (tmp_path / "a.zip").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"a\.zip: expected a whole zip or tar"):
        unpack(tmp_path / "a.zip", tmp_path / "into")


def test_a_hub_listing_gives_addresses_sizes_and_checksums(server: Server) -> None:
    rows = [
        {"path": "README.md", "size": 3},
        {"path": "dataset/train.zip", "size": 10, "lfs": {"oid": "abc", "size": 10}},
        {"path": "val.zip", "size": 5},
    ]
    server.files["/api/datasets/o/n/tree/main"] = json.dumps(rows).encode()
    listing = f"{server.url}/api/datasets/o/n/tree/main?recursive=true"
    train, val = hub_archives(listing)
    assert train == Archive(f"{server.url}/datasets/o/n/resolve/main/dataset/train.zip", 10, "abc")
    assert (val.name, val.sha256) == ("val.zip", None)
    assert hub_archives(listing, "^val") == [val]


def mot17(folder: Path) -> Path:
    """A MOT17 of one sequence, three copies of it as motchallenge.net has them."""
    (drawn,) = find_sequences(make_dataset(folder / "drawn", 1, 3, seed=0))
    for copy in ("MOT17-02-DPM", "MOT17-02-FRCNN", "MOT17-02-SDP"):
        target = folder / "MOT17/train" / copy
        shutil.copytree(drawn.path, target)
        (target / "det").mkdir()
        (target / "det/det.txt").write_text("1,-1,1,1,9,9,0.5\n")
    return folder / "MOT17"


def test_three_copies_of_a_sequence_become_one_with_three_files_of_detections(tmp_path: Path) -> None:
    assert lay_out(mot17(tmp_path), tmp_path / "ready") == 3
    (sequence,) = find_sequences(tmp_path / "ready")
    assert sequence.path == tmp_path / "ready/train/MOT17-02"
    assert sorted(f.name for f in (sequence.path / "det").iterdir()) == ["dpm.txt", "frcnn.txt", "sdp.txt"]
    assert len(sequence.images() or []) == 3


def test_splits_are_named_by_the_folder_above_without_numbers(tmp_path: Path) -> None:
    for name in ("train1/dancetrack0001", "train2/dancetrack0002", "val/dancetrack0004"):
        (tmp_path / "unpacked" / name).mkdir(parents=True)
        (tmp_path / "unpacked" / name / "seqinfo.ini").touch()
    assert lay_out(tmp_path / "unpacked", tmp_path / "ready") == 3
    found = sorted(str(ini.parent.relative_to(tmp_path / "ready")) for ini in tmp_path.glob("ready/*/*/seqinfo.ini"))
    assert found == ["train/dancetrack0001", "train/dancetrack0002", "val/dancetrack0004"]


def test_a_data_set_arrives_by_one_command_and_is_there_at_the_second(server: Server, tmp_path: Path) -> None:
    tree = mot17(tmp_path / "made")
    files = {str(f.relative_to(tree.parent)): f.read_bytes() for f in tree.rglob("*") if f.is_file()}
    server.files["/MOT17.zip"] = zipped(files)[:-30]
    options = "dataset=mot17", f"dataset.archives=[{server.url}/MOT17.zip]", "root=data"
    broken = call("prepare_data", *options, cwd=tmp_path)
    assert (broken.returncode, broken.stderr.count("\n")) == (1, 1), broken.stderr[-1500:]
    assert "MOT17.zip: expected a whole zip or tar" in broken.stderr
    server.files["/MOT17.zip"] = zipped(files)
    for requests in (2, 2):
        done = call("prepare_data", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "CC BY-NC-SA 3.0" in done.stdout
        assert "data: data/MOT17" in done.stdout
        assert len(server.asked) == requests
    assert [s.name for s in find_sequences(tmp_path / "data/MOT17/train")] == ["MOT17-02"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["MOT17"]


def test_penn_fudan_keeps_its_layout(server: Server, tmp_path: Path) -> None:
    server.files["/P.zip"] = zipped({"PennFudanPed/Annotation/a.txt": b"", "PennFudanPed/PNGImages/a.png": b"x"})
    done = call("prepare_data", "dataset=pennfudan", f"dataset.archives=[{server.url}/P.zip]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = sorted(str(f.relative_to(tmp_path)) for f in (tmp_path / "data").rglob("*") if f.is_file())
    assert files == ["data/PennFudanPed/Annotation/a.txt", "data/PennFudanPed/PNGImages/a.png"]
