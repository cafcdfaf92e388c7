"""The page as a person uses it: a real browser, whose webcam is a real street."""

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
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torchvision.transforms.v2.functional import resize

from tests.streaming import bright, scene
from track.datasets.streets import make_dataset
from track.media.sources import frames
from track.media.video_writer import VideoWriter
from track.structures import Frame

gradio = pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import web  # noqa: E402

from track.app.web_session import WebSession, made  # noqa: E402


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
        for frame in islice(frames(source, 25), 120):
            image = resize(frame.image, [240, 320])
            video.write(image)
            raw.write(b"FRAME\n" + _yuv(image))
    return file


def _yuv(image: object) -> bytes:
    import av

    picture = av.VideoFrame.from_ndarray(image.permute(1, 2, 0).contiguous().numpy(), "rgb24")  # type: ignore[attr-defined]
    return bytes(picture.reformat(format="yuv420p").to_ndarray().tobytes())


@pytest.fixture(scope="module")
def server(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page's address, and where its visitors' files are."""
    folder = tmp_path_factory.mktemp("server")
    options = ["web=true", "port=0", "detector=fcos_mobilenet_v2", f"source={street}", "upload_limit=1"]
    serving = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/demo.py"), *options, f"output_dir={folder / 'out'}"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert serving.stdout is not None
    yield serving.stdout.readline().split()[0], folder
    serving.terminate()
    assert serving.wait(60) == 0
    assert not list(folder.glob("track-*"))  # nothing that visitors left


@pytest.fixture(scope="module")
def browser(street: Path, track_data: Path) -> Iterator[object]:
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


def tab(browser, url: str):  # type: ignore[no-untyped-def]
    page = browser.new_context(permissions=["camera"], viewport={"width": 1200, "height": 1000}).new_page()
    page.set_default_timeout(120_000)
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_selector("text=Click to Access Webcam")
    return page


def film(page) -> None:  # type: ignore[no-untyped-def]
    """Let the page have the webcam."""
    page.click("text=Click to Access Webcam")
    page.click("button[aria-label='capture photo']")


def give(page, file: Path) -> None:  # type: ignore[no-untyped-def]
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


def people(page) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """How many so far, and how many now."""
    found = re.search(r"person: (\d+) so far, (\d+) now", page.inner_text("#counts"))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def downloaded(page, ending: str, folder: Path) -> Path:  # type: ignore[no-untyped-def]
    page.click("#results")
    link = page.wait_for_selector(f"a[download$='{ending}']")
    with page.expect_download() as download:
        link.click()
    download.value.save_as(folder / f"downloaded{ending}")
    return folder / f"downloaded{ending}"


@pytest.mark.data
def test_a_visitors_webcam_is_tracked_live(server: tuple[str, Path], browser: object, tmp_path: Path) -> None:
    page = tab(browser, server[0])
    film(page)
    until(lambda: people(page)[1] >= 3)
    first = page.get_attribute("#picture img", "src")
    until(lambda: page.get_attribute("#picture img", "src") != first)
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


@pytest.mark.data
def test_a_video_is_uploaded_tracked_and_downloaded(
    server: tuple[str, Path], browser: object, street: Path, tmp_path: Path
) -> None:
    page = tab(browser, server[0])
    page.click("button[role=tab]:has-text('A video') >> visible=true")
    give(page, street)
    page.click("button:has-text('Track it')")
    until(lambda: "the end" in page.inner_text("#counts"), 120)
    assert people(page)[0] >= 4
    video = downloaded(page, ".mp4", tmp_path)
    assert len(list(frames(video))) == 120
    page.context.close()


@pytest.mark.data
def test_the_servers_source_is_watched_and_stopped(server: tuple[str, Path], browser: object) -> None:
    page = tab(browser, server[0])
    page.click("button[role=tab]:has-text('source') >> visible=true")
    page.click("button:has-text('Watch')")
    until(lambda: people(page)[0] >= 3)
    page.click("button:has-text('Stop') >> visible=true")
    time.sleep(1.5)
    before = page.inner_text("#counts")
    time.sleep(1.5)
    assert page.inner_text("#counts") == before
    assert "the end" not in before
    page.context.close()


@pytest.mark.data
def test_ten_tabs_at_once_are_served_and_forgotten_when_closed(server: tuple[str, Path], browser: object) -> None:
    url, folder = server
    until(lambda: not list(folder.glob("track-*/visit-*")), 60)
    pages = [tab(browser, url) for _ in range(10)]
    assert len(list(folder.glob("track-*/visit-*"))) == 10
    for page in pages:
        film(page)
    until(lambda: all(people(page)[0] >= 1 for page in pages), 300)
    for page in pages:
        page.context.close()
    until(lambda: not list(folder.glob("track-*/visit-*")), 60)


def test_what_is_too_large_is_not_taken(server: tuple[str, Path]) -> None:
    answers = [
        httpx.post(f"{server[0]}gradio_api/upload", files={"files": ("a.mp4", bytes(size))}).status_code
        for size in (1000, 2_000_000)
    ]
    assert answers == [200, 413]


def test_only_this_machine_is_listened_to(server: tuple[str, Path]) -> None:
    port = int(server[0].rsplit(":", 1)[1].strip("/"))
    files = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    table = [line.split()[1:4] for file in files if file.exists() for line in file.read_text().splitlines()[1:]]
    listening = {
        address.split(":")[0] for address, _, state in table if state == "0A" and int(address.split(":")[1], 16) == port
    }
    assert listening == {f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}"}


class WebOptions:
    """What a visitor may choose from, of a detector of what is white."""

    nodes = {"tracker": {"gru": OmegaConf.create({"_target_": "track.tracking.tracker.Tracker"})}}  # noqa: RUF012
    first = {"detector": "white", "classes": ["person"], "tracker": "gru", "min_score": 0.1, "trails": True}  # noqa: RUF012

    def detector(self, name: str, classes: list[str]) -> tuple[object, list[str]]:
        if name == "absent":
            raise ValueError("absent: its weights could not be downloaded")
        return bright, ["background", "person"]

    def categories(self, name: str) -> list[str]:
        return ["dog", "person"]


@pytest.fixture
def visit(tmp_path: Path) -> WebSession:
    (tmp_path / "visit").mkdir()
    return WebSession(WebOptions(), {"lines": {"door": [100, 0, 100, 120]}}, tmp_path / "visit")  # type: ignore[arg-type]


def watched(visit: WebSession, turn: int, count: int) -> list[torch.Tensor | None]:
    return [visit.step(Frame(scene(n / 10), n / 10, n + 1), turn) for n in range(count)]


def test_the_webcam_waits_while_a_video_plays_and_then_begins_anew(visit: WebSession) -> None:
    turn = visit.begin(rate=10)
    assert all(picture is not None for picture in watched(visit, turn, 20))
    assert visit.film(scene(0)) is None
    assert visit.session.scene.counts == {1: 1}  # type: ignore[union-attr]
    visit.end(turn)
    assert watched(visit, turn, 1) == [None]
    for _ in range(3):
        assert visit.film(scene(0)) is not None  # whose times begin at zero again
    assert visit.session.last.time < 1  # type: ignore[union-attr]
    assert visit.session.last.number == 3  # type: ignore[union-attr]


def test_what_was_watched_before_stays_among_the_results(visit: WebSession) -> None:
    watched(visit, visit.begin(rate=10), 20)
    visit.chosen = visit.chosen | {"classes": ["person", "dog"]}
    watched(visit, visit.begin(), 15)
    names = {Path(file).name for file in visit.results()}
    assert names >= {"tracks-1.csv", "tracks-2.csv", "tracked-1.mp4", "heatmap-1.png", "heatmap-2.png", "events-1.csv"}
    assert "tracked-2.mp4" not in names
    assert len(list(frames(visit.folder / "tracked-1.mp4"))) == 20
    assert len((visit.folder / "tracks-2.txt").read_text().splitlines()) == 15


def test_the_files_of_a_tab_go_with_it(visit: WebSession, tmp_path: Path) -> None:
    turn = visit.begin()
    watched(visit, turn, 3)
    visit.close()
    assert list(tmp_path.iterdir()) == []
    assert watched(visit, turn, 1) == [None]
    assert watched(visit, visit.begin(), 1) == [None]
    assert visit.film(scene(0)) is None
    assert visit.results() == []


@pytest.fixture
def page(tmp_path: Path) -> web.WebApp:
    return web.WebApp(OmegaConf.create({"source": None}), WebOptions(), {}, tmp_path)  # type: ignore[arg-type]


def asks(name: str) -> SimpleNamespace:
    return SimpleNamespace(session_hash=name)


def test_an_upload_goes_with_the_last_tab_that_has_it(page: web.WebApp, tmp_path: Path) -> None:
    file = tmp_path / "upload.mp4"
    file.write_bytes(b"a video")
    for name in ("a", "b"):
        page.enter(asks(name))
        page.keep(str(file), asks(name))
    page.leave(asks("a"))
    assert file.exists()
    page.leave(asks("b"))
    assert list(tmp_path.iterdir()) == []


def test_a_video_is_watched_to_its_end_and_no_further_when_the_tab_is_closed(page: web.WebApp, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", 10) as video:
        for n in range(30):
            video.write(scene(n / 10))
    page.enter(asks("a"))
    visit = page.visit(asks("a"))
    *_, (picture, counts) = page.upload(str(tmp_path / "film.mp4"), asks("a"))
    assert "person: 1 so far" in counts
    assert counts.endswith("the end")
    assert picture.startswith("<img")
    assert len(list(frames(visit.folder / "tracked-1.mp4"))) == 30
    assert not visit.playing
    page.leave(asks("a"))
    assert list(page._watch(visit, str(tmp_path / "film.mp4"), "film.mp4")) == []


def test_refusals_are_shown_in_a_line(page: web.WebApp, tmp_path: Path) -> None:
    page.enter(asks("a"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(gradio.Error, match=r"^'text.mp4: expected a video'$"):
        list(page.upload(str(tmp_path / "text.mp4"), asks("a")))
    assert not page.visit(asks("a")).playing
    with pytest.raises(gradio.Error, match="absent: its weights could not be downloaded"):
        page.choose(asks("a"), "absent", ["person"], "gru", 0.1, True)
    with pytest.raises(gradio.Error, match="this tab was closed"):
        page.webcam(None, asks("b"))
    with pytest.raises(ValueError, match=r"detector\.name: nonsense is unknown, nearest: "):
        made(OmegaConf.create({"_target_": "track.detection.detector.Detector", "name": "nonsense"}))


def test_no_more_tabs_than_can_be_served(page: web.WebApp) -> None:
    for number in range(web.VISITS):
        page.enter(asks(str(number)))
    with pytest.raises(gradio.Error, match="too many visitors"):
        page.enter(asks("more"))
    page.leave(asks("0"))
    page.enter(asks("more"))
