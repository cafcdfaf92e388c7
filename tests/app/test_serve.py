"""grutrack serve as a person uses it: a real browser, whose webcam is a drawn or a real street."""

from __future__ import annotations

import csv
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import av
import pytest
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from tests.conftest import Call
from track.datasets.streets import make_dataset
from track.media.sources import ImageFolder, VideoFile
from track.media.video_writer import VideoWriter

pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PEOPLE = (
    3 if os.environ.get("TRACK_DATA") else 1
)  # that the packaged detector finds at least: fewer are found when drawn


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TUD-Stadtmitte, half as large, as an mp4 and beside it as the y4m that Chromium takes for a webcam; a drawn
    street where there is no data."""
    file, root = tmp_path_factory.mktemp("street") / "street.mp4", os.environ.get("TRACK_DATA")
    source = (
        f"{root}/MOT15/train/TUD-Stadtmitte/img1" if root else make_dataset(file.parent, 1, 120) / "street-00-00/img1"
    )
    with VideoWriter(file, 25) as video, file.with_suffix(".y4m").open("wb") as raw:
        raw.write(b"YUV4MPEG2 W320 H240 F25:1 Ip A1:1 C420\n")
        for frame in islice(ImageFolder(source), 120):
            image = resize(frame.image, [240, 320])
            video.write(image)
            raw.write(b"FRAME\n" + _yuv(image))
    return file


def _yuv(image: Tensor) -> bytes:
    array = image.permute(1, 2, 0).contiguous().numpy()
    return bytes(av.VideoFrame.from_ndarray(array, "rgb24").reformat(format="yuv420p").to_ndarray().tobytes())


@pytest.fixture(scope="module")
def server(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page's address, and where its visitors' files are."""
    folder = tmp_path_factory.mktemp("server")
    options = ["port=0", "detector.name=fcos_mobilenet_v2_fpn", f"source={street}", "upload_limit=1"]
    serving = subprocess.Popen(
        [sys.executable, "-m", "track", "serve", *options, f"output_dir={folder / 'out'}"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert serving.stdout is not None
    yield serving.stdout.readline().split()[0], folder
    serving.terminate()
    assert serving.wait(60) == 0
    assert not list(folder.glob("track-*"))  # nothing that visitors left


@pytest.fixture(scope="module")
def browser(street: Path) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    camera = "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"
    quiet = "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"
    film = f"--use-file-for-fake-video-capture={street.with_suffix('.y4m')}"
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=[*camera, *quiet, film])
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _closed_tabs(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails leaves no tab to the next one."""
    yield
    for context in request.getfixturevalue("browser").contexts if "browser" in request.fixturenames else []:
        context.close()


def tab(browser: Any, url: str) -> Any:
    page = browser.new_context(permissions=["camera"], viewport={"width": 1200, "height": 1000}).new_page()
    page.set_default_timeout(120_000)
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_selector("text=Click to Access Webcam")
    return page


def film(page: Any) -> None:
    """Let the page have the webcam."""
    page.click("text=Click to Access Webcam")
    page.click("button[aria-label='capture photo']")


def give(page: Any, file: Path) -> None:
    """Choose a file to upload, again where the page was not ready to take it."""
    for _ in range(8):
        page.set_input_files("input[type=file] >> nth=-1", file)
        with suppress(playwright.TimeoutError):
            page.wait_for_selector(f"text={file.name}", timeout=20_000)
            return
    raise AssertionError(f"{file.name} was not taken")


def until(so: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)


def people(page: Any) -> tuple[int, int]:
    """How many so far, and how many now."""
    found = re.search(r"person: (\d+) so far, (\d+) now", page.inner_text("#counts"))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def downloaded(page: Any, ending: str, folder: Path) -> Path:
    page.click("#results")
    link = page.wait_for_selector(f"a[download$='{ending}']")
    with page.expect_download() as download:
        link.click()
    download.value.save_as(folder / f"downloaded{ending}")
    return folder / f"downloaded{ending}"


def test_a_visitors_webcam_is_tracked_live(server: tuple[str, Path], browser: Any, tmp_path: Path) -> None:
    page = tab(browser, server[0])
    film(page)
    until(lambda: people(page)[1] >= PEOPLE)
    first = page.get_attribute("#image img", "src")
    until(lambda: page.get_attribute("#image img", "src") != first)
    page.screenshot(path=os.environ.get("TRACK_SCREENSHOT", str(tmp_path / "page.png")))
    time.sleep(3)
    with downloaded(page, "-1.csv", tmp_path).open() as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"person"}
    lasting = max({row["id"] for row in rows}, key=lambda i: sum(row["id"] == i for row in rows))
    times = [float(row["time"]) for row in rows if row["id"] == lasting]
    lefts = [float(row["x1"]) for row in rows if row["id"] == lasting]
    assert len(times) >= 5
    assert all(a < b for a, b in zip(times, times[1:], strict=False))
    assert max(lefts) - min(lefts) > 2
    page.fill("#score input[type=number]", "0.95")
    page.press("#score input[type=number]", "Enter")
    until(lambda: people(page)[1] <= 1)
    page.context.close()


def test_a_video_is_uploaded_tracked_and_downloaded(
    server: tuple[str, Path], browser: Any, street: Path, tmp_path: Path
) -> None:
    page = tab(browser, server[0])
    page.click("button[role=tab]:has-text('A video') >> visible=true")
    give(page, street)
    page.click("button:has-text('Track it')")
    until(lambda: "the end" in page.inner_text("#counts"), 120)
    assert people(page)[0] >= PEOPLE
    video = downloaded(page, ".mp4", tmp_path)
    assert len(list(VideoFile(video))) == 120
    page.context.close()


def test_the_servers_source_is_watched_and_stopped(server: tuple[str, Path], browser: Any) -> None:
    page = tab(browser, server[0])
    page.click("button[role=tab]:has-text('source') >> visible=true")
    page.click("button:has-text('Watch')")
    until(lambda: people(page)[0] >= PEOPLE)
    page.click("button:has-text('Stop') >> visible=true")
    time.sleep(1.5)
    before = page.inner_text("#counts")
    time.sleep(1.5)
    assert page.inner_text("#counts") == before
    assert "the end" not in before
    page.context.close()


def test_ten_tabs_at_once_are_served_and_forgotten_when_closed(server: tuple[str, Path], browser: Any) -> None:
    url, folder = server
    until(lambda: not list(folder.glob("track-*/session-*")), 60)
    pages = [tab(browser, url) for _ in range(10)]
    until(lambda: len(list(folder.glob("track-*/session-*"))) == 10, 60)
    for page in pages:
        film(page)
    until(lambda: all(people(page)[0] >= 1 for page in pages), 300)
    for page in pages:
        page.context.close()
    until(lambda: not list(folder.glob("track-*/session-*")), 60)


def test_what_is_too_large_is_not_taken(server: tuple[str, Path]) -> None:
    answers = [
        httpx.post(f"{server[0]}gradio_api/upload", files={"files": ("a.mp4", bytes(size))}).status_code
        for size in (1000, 2_000_000)
    ]
    assert answers == [200, 413]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:{port}"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "{url}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
    ],
)
def test_other_sites_are_not_answered(server: tuple[str, Path], headers: dict[str, str], status: int) -> None:
    url = server[0].rstrip("/")
    filled = {name: value.format(url=url, port=url.rsplit(":", 1)[1]) for name, value in headers.items()}
    for method in ("GET", "OPTIONS"):
        asked = filled | ({"Access-Control-Request-Method": "POST"} if method == "OPTIONS" else {})
        answer = httpx.request(method, f"{url}/config", headers=asked)
        assert answer.status_code == status or (method, status) == ("OPTIONS", 200)
        assert "evil" not in str(answer.headers)
    upload = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.mp4", b"content")}, headers=filled)
    assert upload.status_code == status


def test_bodies_and_uploads_are_bounded(server: tuple[str, Path]) -> None:
    url, folder = server
    assert httpx.post(f"{url}gradio_api/queue/join", content=b"x" * (5 * 2**20)).status_code == 413
    assert httpx.post(f"{url}gradio_api/queue/join", content=iter([b"x"])).status_code == 411
    files = [bytes([n]) * 900_000 for n in range(15)]  # of equal files one is kept
    codes = [httpx.post(f"{url}gradio_api/upload", files={"files": ("a.mp4", file)}).status_code for file in files]
    assert codes[:8] == [200] * 8
    assert codes[-1] == 507
    cache = [file for file in folder.glob("track-*/cache/**/*") if file.is_file()]
    assert sum(file.stat().st_size for file in cache) < 10.1 * 2**20
    for file in cache:
        file.unlink()


def test_only_this_machine_is_listened_to(server: tuple[str, Path]) -> None:
    port = int(server[0].rsplit(":", 1)[1].strip("/"))
    files = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    table = [line.split()[1:4] for file in files if file.exists() for line in file.read_text().splitlines()[1:]]
    listening = {
        address.split(":")[0] for address, _, state in table if state == "0A" and int(address.split(":")[1], 16) == port
    }
    assert listening == {f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["port=99999"], "port=99999: expected one that is free on 127.0.0.1, or port=0"),
        (["zones={queue: [[0,0],[1,1]]}"], "zone queue: expected three or more points"),
        (["camera=maybe"], "camera: expected one of auto, none, file, estimate, got maybe"),
        (["host=0.0.0.0"], "password: expected one with host=0.0.0.0"),
        (["host=0.0.0.0", "password="], "password: expected one with host=0.0.0.0"),
        (["viewer=window"], "viewer: no such option"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_1(call: Call, options: list[str], message: str) -> None:
    done = call("serve", *options)
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert message in done.err


def test_what_a_killed_server_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    from track.app.serve import remove_leftovers

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = f"track-{ended.pid}-abc", f"track-{os.getpid()}-abc", "track-other-abc"
    for name in names:
        (tmp_path / name / "session").mkdir(parents=True)
        (tmp_path / name / ".grutrack-serve").touch()
    (tmp_path / f"track-{ended.pid}-mine").mkdir()
    remove_leftovers(tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == {*names[1:], f"track-{ended.pid}-mine"}
