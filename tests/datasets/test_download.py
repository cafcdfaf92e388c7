"""Downloads and archives, from an unreliable server on loopback."""

import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import Call, file_size_limit
from track.app.prepare_data import prepare
from track.datasets.download import (
    DATASETS,
    Archive,
    DataSet,
    dataset_named,
    download,
    hub_archives,
    lay_out,
    unpack,
)
from track.datasets.streets import make_dataset
from track.formats.mot import find_sequences


class Server:
    """Serves `files`; each response breaks off after `max_bytes`. requests: path and Range of every request."""

    def __init__(self, max_bytes: int = 2**30) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requested = self.headers.get("Range")
                server.requests.append((self.path, requested))
                if self.path in server.redirects:
                    self.send_response(302)
                    self.send_header("Location", server.redirects[self.path])
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                content = server.files.get(self.path.split("?")[0])
                if content is None:
                    return self.send_error(404)
                start = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
                if start >= len(content) > 0:
                    return self.send_error(416)
                version = hashlib.sha256(content).hexdigest()
                if self.headers.get("If-Range", version) != version:
                    requested, start = None, 0
                self.send_response(206 if requested else 200)
                self.send_header("ETag", version)
                if requested:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                self.wfile.write(content[start : start + max_bytes])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    reliable = Server()
    yield reliable
    reliable.http.shutdown()


@pytest.fixture
def interrupting_server() -> Iterator[Server]:
    interrupting = Server(max_bytes=400)
    yield interrupting
    interrupting.http.shutdown()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_download_is_resumed_where_the_connection_broke_off(interrupting_server: Server, tmp_path: Path) -> None:
    content = bytes(range(250)) * 4
    interrupting_server.files["/a.zip"] = content
    archive = Archive(f"{interrupting_server.url}/a.zip", len(content), hashlib.sha256(content).hexdigest())
    progress: list[tuple[int, int]] = []
    file = download(archive, tmp_path, lambda done, total: progress.append((done, total)), pause=0)
    assert file.read_bytes() == content
    assert interrupting_server.requests == [("/a.zip", None), ("/a.zip", "bytes=400-"), ("/a.zip", "bytes=800-")]
    assert progress == [(400, 1000), (800, 1000), (1000, 1000)]
    assert download(archive, tmp_path) == file
    assert len(interrupting_server.requests) == 3


def test_a_second_call_resumes_where_the_first_gave_up(server: Server, tmp_path: Path) -> None:
    content = b"x" * 900
    (tmp_path / "a.zip.part").write_bytes(content[:500])
    with pytest.raises(ValueError, match=r"a\.zip: the server refused \(404"):
        download(Archive(f"{server.url}/a.zip"), tmp_path, pause=0)
    server.files["/a.zip"] = content
    assert download(Archive(f"{server.url}/a.zip"), tmp_path, pause=0).read_bytes() == content
    assert server.requests[-1] == ("/a.zip", "bytes=500-")


def test_a_download_gives_up_after_attempts_without_a_byte(tmp_path: Path) -> None:
    server = Server(max_bytes=0)
    server.files["/a.zip"] = b"x" * 10
    with pytest.raises(ValueError, match=r"a\.zip: stopped after 0 bytes \(the connection ended early\); run again"):
        download(Archive(f"{server.url}/a.zip"), tmp_path, attempts=3, pause=0)
    assert len(server.requests) == 3
    server.http.shutdown()


@pytest.mark.parametrize(
    ("size", "sha256", "message"),
    [
        (10, "0" * 64, "expected the published checksum"),
        (12, None, "expected 12 bytes as published, the server has 10"),
    ],
)
def test_a_download_of_another_size_or_checksum_is_removed(
    size: int, sha256: str | None, message: str, server: Server, tmp_path: Path
) -> None:
    server.files["/a.zip"] = b"x" * 10
    with pytest.raises(ValueError, match=message):
        download(Archive(f"{server.url}/a.zip", size, sha256), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_an_older_file_is_not_completed_with_the_tail_of_a_newer_one(
    interrupting_server: Server, tmp_path: Path
) -> None:
    interrupting_server.files["/a.zip"] = b"old" * 200
    with pytest.raises(ValueError, match="stopped after 400 bytes"):
        download(Archive(f"{interrupting_server.url}/a.zip"), tmp_path, attempts=0, pause=0)
    interrupting_server.files["/a.zip"] = b"new" * 200
    file = download(Archive(f"{interrupting_server.url}/a.zip"), tmp_path, pause=0)
    assert file.read_bytes() == b"new" * 200
    assert [found.name for found in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    "target", ["ftp://127.0.0.1/a.zip", "file:///etc/hosts", "http://example.com/a.zip", "https://example.com/a.zip"]
)
def test_redirects_to_other_servers_are_not_followed(target: str, server: Server, tmp_path: Path) -> None:
    server.redirects["/a.zip"] = target
    with pytest.raises(ValueError, match=r"expected no redirect to|Redirection to url .* is not allowed"):
        download(Archive(f"{server.url}/a.zip"), tmp_path, attempts=1, pause=0)
    assert list(tmp_path.iterdir()) == []


def test_redirects_on_the_same_server_are_followed(server: Server, tmp_path: Path) -> None:
    server.redirects["/a.zip"] = "/b.zip"
    server.files["/b.zip"] = b"content"
    assert download(Archive(f"{server.url}/a.zip"), tmp_path, pause=0).read_bytes() == b"content"


def test_only_http_addresses_are_downloaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file:///etc/hosts: expected a http or https address"):
        download(Archive("file:///etc/hosts"), tmp_path)


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leaves_the_folder_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{kind}"
    if kind == "zip":
        file.write_bytes(zipped({name: b"evil"}))
    else:
        with tarfile.open(file, "w") as archive:
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ValueError, match="would leave the folder"):
        unpack(file, tmp_path / "into")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [file.name]


@pytest.mark.parametrize("target", ["/etc/hosts", "../../out.txt"])
def test_a_link_out_of_the_folder_is_refused(target: str, tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, target
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(link)
    with pytest.raises(ValueError, match="expected a whole zip or tar"):
        unpack(tmp_path / "a.tar", tmp_path / "into")
    assert not (tmp_path / "into/link").exists()


def test_an_archive_that_expands_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("track.datasets.download.EXPANSION_ALLOWANCE", 2**16)
    (tmp_path / "a.zip").write_bytes(zipped({"small.txt": b"x", "large.txt": bytes(2**24)}))
    with pytest.raises(ValueError, match="unpacks to more than 20 times its size"):
        unpack(tmp_path / "a.zip", tmp_path / "into")
    assert not (tmp_path / "into/large.txt").exists()


@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_a_truncated_archive_is_refused(fraction: float, tmp_path: Path) -> None:
    content = zipped({"a.bin": bytes(range(256)) * 20})
    (tmp_path / "a.zip").write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match=r"a\.zip: expected a whole zip or tar"):
        unpack(tmp_path / "a.zip", tmp_path / "into")


def damaged_zips() -> dict[str, bytes]:
    """Zip files that are broken in different places."""
    whole = bytearray(zipped({"a.txt": bytes(range(256)) * 50}))
    encrypted, checksum, deflated, long = (bytearray(whole) for _ in range(4))
    directory = whole.index(b"PK\x01\x02")
    encrypted[6] |= 1
    encrypted[directory + 8] |= 1
    for at in (14, directory + 16):
        checksum[at] ^= 0xFF
    deflated[40:60] = b"\xff" * 20
    return {
        "encrypted": bytes(encrypted),
        "checksum": bytes(checksum),
        "deflated": bytes(deflated),
        "long": zipped({"x" * 300: b"content"}),
        "nothing": b"",
        "text": bytes(long[:10]),
    }


@pytest.mark.parametrize("kind", damaged_zips())
def test_archives_that_are_damaged_in_any_way_are_one_line(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(damaged_zips()[kind])
    with pytest.raises(ValueError, match=r"^.*a\.zip: expected a whole zip or tar \([^\n]*\)$"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_an_archive_of_very_many_empty_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("track.datasets.download.MAX_ENTRIES", 20)
    (tmp_path / "a.zip").write_bytes(zipped({f"{n}.txt": b"" for n in range(21)}))
    with pytest.raises(ValueError, match="expected at most 20 entries, nothing more is unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 20


@pytest.mark.parametrize(
    "listing",
    [
        b"",
        b"{",
        b"null",
        b"{}",
        b"[1]",
        b'[{"path": 5}]',
        b'[{"path": "../a.zip"}]',
        b'[{"path": "a.zip", "size": "x"}]',
    ],
)
def test_a_listing_that_is_none_is_refused_in_one_line(listing: bytes, server: Server) -> None:
    server.files["/api/tree/main"] = listing
    with pytest.raises(ValueError, match=r"/api/tree/main: expected [^\n]*$"):
        hub_archives(f"{server.url}/api/tree/main")


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
    with pytest.raises(ValueError, match="expected archives"):
        hub_archives(listing, "^test")
    with pytest.raises(ValueError, match="names: expected a regular expression, got "):
        hub_archives(listing, "*val")


def mot17(folder: Path) -> Path:
    """A MOT17 of one sequence in three copies, as motchallenge.net has them."""
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
    folders = sorted(str(ini.parent.relative_to(tmp_path / "ready")) for ini in tmp_path.glob("ready/*/*/seqinfo.ini"))
    assert folders == ["train/dancetrack0001", "train/dancetrack0002", "val/dancetrack0004"]


def mot17_archive(folder: Path) -> bytes:
    tree = mot17(folder)
    return zipped({str(f.relative_to(tree.parent)): f.read_bytes() for f in tree.rglob("*") if f.is_file()})


def test_a_data_set_is_prepared_once_and_after_a_damaged_archive_downloaded_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = replace(DATASETS["mot17"], archives=(f"{server.url}/MOT17.zip",))
    content = mot17_archive(tmp_path / "made")
    server.files["/MOT17.zip"] = content[:-30]
    with pytest.raises(ValueError, match=r"MOT17\.zip: expected a whole zip or tar") as error:
        prepare(dataset, tmp_path / "data")
    assert "\n" not in str(error.value)
    server.files["/MOT17.zip"] = content
    for _ in range(2):
        assert prepare(dataset, tmp_path / "data") == tmp_path / "data/MOT17"
        assert "CC BY-NC-SA 3.0" in capsys.readouterr().out
        assert len(server.requests) == 2
    assert [s.name for s in find_sequences(tmp_path / "data/MOT17/train")] == ["MOT17-02"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["MOT17"]


def test_the_command_prints_where_the_data_set_is_and_refuses_in_one_line(
    server: Server, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "mot17", replace(DATASETS["mot17"], archives=(f"{server.url}/MOT17.zip",)))
    refused = call("prepare-data", "dataset=mot17", "root=data")
    assert (refused.code, refused.err.count("\n")) == (1, 1), refused.err
    assert "MOT17.zip: the server refused (404" in refused.err
    server.files["/MOT17.zip"] = mot17_archive(tmp_path / "made")
    done = call("prepare-data", "dataset=mot17", "root=data")
    assert done.code == 0, done.err
    assert "CC BY-NC-SA 3.0" in done.out
    assert "data: data/MOT17" in done.out


def test_a_data_set_of_several_archives_is_prepared_from_those_that_match(server: Server, tmp_path: Path) -> None:
    rows = []
    for split in ("train", "val"):
        content = zipped({f"{split}/dance-{split}/seqinfo.ini": b""})
        server.files[f"/datasets/o/n/resolve/main/{split}.zip"] = content
        rows.append({"path": f"{split}.zip", "size": len(content)})
    server.files["/api/datasets/o/n/tree/main"] = json.dumps(rows).encode()
    dataset = DataSet("Dance", "page", "licence", hub=f"{server.url}/api/datasets/o/n/tree/main")
    home = prepare(dataset, tmp_path / "some", "^val")
    assert [str(ini.relative_to(home)) for ini in home.rglob("seqinfo.ini")] == ["val/dance-val/seqinfo.ini"]
    home = prepare(dataset, tmp_path / "all")
    assert len(list(home.rglob("seqinfo.ini"))) == 2


def test_penn_fudan_keeps_its_layout(server: Server, tmp_path: Path) -> None:
    server.files["/P.zip"] = zipped({"PennFudanPed/Annotation/a.txt": b"", "PennFudanPed/PNGImages/a.png": b"x"})
    prepare(replace(DATASETS["pennfudan"], archives=(f"{server.url}/P.zip",)), tmp_path / "data")
    files = sorted(str(f.relative_to(tmp_path)) for f in (tmp_path / "data").rglob("*") if f.is_file())
    assert files == ["data/PennFudanPed/Annotation/a.txt", "data/PennFudanPed/PNGImages/a.png"]


def test_an_archive_without_sequences_or_annotations_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/a.zip"] = zipped({"readme.txt": b""})
    with pytest.raises(ValueError, match=r"a\.zip: expected sequences \(seqinfo.ini\) or Penn-Fudan's Annotation"):
        prepare(DataSet("A", "page", "licence", (f"{server.url}/a.zip",)), tmp_path)


def test_an_unknown_data_set_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"dataset: expected one of mot17, mot20, dancetrack, .*, got mot16"):
        dataset_named("mot16")


def test_a_checksum_that_is_printed_once_is_verified_the_next_time(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/P.zip"] = zipped({"PennFudanPed/Annotation/a.txt": b"", "PennFudanPed/PNGImages/a.png": b"x"})
    dataset = replace(DATASETS["pennfudan"], archives=(f"{server.url}/P.zip",))
    prepare(dataset, tmp_path / "first")
    expected = hashlib.sha256(server.files["/P.zip"]).hexdigest()
    assert f"P.zip: sha256={expected}\n" in capsys.readouterr().out
    prepare(dataset, tmp_path / "same", sha256=expected.upper())
    left = tmp_path / "other/.PennFudanPed.part/P.zip"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"an archive that was downloaded before")
    with pytest.raises(ValueError, match=r"P\.zip: expected the published checksum, the download was removed"):
        prepare(dataset, tmp_path / "other", sha256=expected)
    assert not left.exists()
    with pytest.raises(ValueError, match="sha256: expected none for DanceTrack, whose server publishes the checksums"):
        prepare(DATASETS["dancetrack"], tmp_path, sha256=expected)


def test_a_full_disk_keeps_what_was_downloaded(server: Server, tmp_path: Path) -> None:
    images = {f"PennFudanPed/PNGImages/{n}.png": bytes(range(256)) * 40 for n in range(9)}
    server.files["/P.zip"] = zipped({"PennFudanPed/Annotation/a.txt": b""} | images)
    archived = len(server.files["/P.zip"])
    dataset = replace(DATASETS["pennfudan"], archives=(f"{server.url}/P.zip",))
    work = tmp_path / ".PennFudanPed.part"
    with (
        file_size_limit(500),
        pytest.raises(ValueError, match=r"P\.zip\.part: write failed \(File too large\); run ag"),
    ):
        prepare(dataset, tmp_path)
    assert (work / "P.zip.part").stat().st_size == 500
    with file_size_limit(archived), pytest.raises(OSError, match="File too large"):
        prepare(dataset, tmp_path)
    assert (work / "P.zip").read_bytes() == server.files["/P.zip"]
    assert not (tmp_path / "PennFudanPed").exists()
    requests = len(server.requests)
    assert len(list((prepare(dataset, tmp_path) / "PNGImages").iterdir())) == 9
    assert (len(server.requests), list(tmp_path.iterdir())) == (requests, [tmp_path / "PennFudanPed"])
