"""A tab's session and the page's app, without a browser."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from torch import Tensor

from tests.streaming import BrightDetector, scene
from track.app.console.cli import instantiate
from track.app.live.web_session import Choice, WebOptions, WebSession
from track.detection.source import DetectionSource
from track.media.sources import VideoFile
from track.media.video_writer import VideoWriter
from track.structures import Frame
from track.tracking.tracker import Tracker

gradio = pytest.importorskip("gradio")
from track.app import serve  # noqa: E402


class Options:
    """What a visitor may choose from, of a detector of what is white."""

    camera = "none"
    first = Choice("white", ["person"], "gru", 0.1, True)
    detectors = dict.fromkeys(("white", "absent"))
    trackers = dict.fromkeys(("gru",))
    check = WebOptions.check

    def detector(self, name: str, classes: list[str]) -> DetectionSource:
        if name == "absent":
            raise ValueError("absent: its weights could not be downloaded")
        return BrightDetector()

    def tracker(self, name: str) -> Tracker:
        return Tracker()

    def categories(self, name: str) -> list[str]:
        return ["dog", "person"]


@pytest.fixture
def session(tmp_path: Path) -> WebSession:
    (tmp_path / "visit").mkdir()
    return WebSession(Options(), {"lines": {"door": [100, 0, 100, 120]}}, tmp_path / "visit")  # type: ignore[arg-type]


def watched(session: WebSession, turn: int, count: int) -> list[Tensor | None]:
    return [session.step(Frame(scene(n / 10), n / 10, n + 1), turn) for n in range(count)]


def test_the_webcam_waits_while_a_video_plays_and_then_starts_again(session: WebSession) -> None:
    turn = session.begin(frame_rate=10)
    assert all(image is not None for image in watched(session, turn, 20))
    assert session.webcam_frame(scene(0)) is None
    assert "person: 1 so far" in session.counts()
    session.end(turn)
    assert watched(session, turn, 1) == [None]
    for _ in range(3):
        assert session.webcam_frame(scene(0)) is not None  # whose times begin at zero again
    rows = (session.folder / "tracks-2.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1].split(",")[1]) < 1


def test_what_was_tracked_before_stays_among_the_results(session: WebSession) -> None:
    watched(session, session.begin(frame_rate=10), 20)
    session.choose(session.choice._replace(classes=["person", "dog"]))
    watched(session, session.begin(), 15)
    names = {Path(file).name for file in session.results()}
    assert names >= {"tracks-1.csv", "tracks-2.csv", "tracked-1.mp4", "heatmap-1.png", "heatmap-2.png", "events-1.csv"}
    assert "tracked-2.mp4" not in names
    assert len(list(VideoFile(session.folder / "tracked-1.mp4"))) == 20
    assert len((session.folder / "tracks-2.txt").read_text().splitlines()) == 15


def test_a_score_threshold_takes_effect_at_the_next_frame(session: WebSession) -> None:
    turn = session.begin()
    watched(session, turn, 5)
    session.choose(session.choice._replace(min_score=0.99))
    session.step(Frame(scene(0.5), 0.5, 6), turn)
    assert "person: 1 so far, 0 now" in session.counts()


def test_the_files_of_a_tab_are_deleted_with_it(session: WebSession, tmp_path: Path) -> None:
    turn = session.begin()
    watched(session, turn, 3)
    session.close()
    assert list(tmp_path.iterdir()) == []
    assert watched(session, turn, 1) == [None]
    assert watched(session, session.begin(), 1) == [None]
    assert session.webcam_frame(scene(0)) is None
    assert session.results() == []


@pytest.fixture
def app(tmp_path: Path) -> serve.WebApp:
    return serve.WebApp(OmegaConf.create({"source": None, "camera": "none"}), Options(), {}, tmp_path)  # type: ignore[arg-type]


def request(name: str) -> Any:
    return SimpleNamespace(session_hash=name)


def test_an_upload_is_deleted_with_the_last_tab_that_has_it(app: serve.WebApp, tmp_path: Path) -> None:
    file = tmp_path / "upload.mp4"
    file.write_bytes(b"a video")
    for name in ("a", "b"):
        app.enter(request(name))
        app.keep_upload(str(file), request(name))
    app.leave(request("a"))
    assert file.exists()
    app.leave(request("b"))
    assert list(tmp_path.iterdir()) == []


def test_a_video_is_tracked_to_its_end_and_no_further_once_the_tab_is_closed(app: serve.WebApp, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", 10) as video:
        for n in range(30):
            video.write(scene(n / 10))
    app.enter(request("a"))
    session = app.session(request("a"))
    *_, (image, counts) = app.track_upload(str(tmp_path / "film.mp4"), request("a"))
    assert "person: 1 so far" in counts
    assert counts.endswith("the end")
    assert image.startswith("<img")
    assert len(list(VideoFile(session.folder / "tracked-1.mp4"))) == 30
    assert not session.playing
    app.leave(request("a"))
    assert list(app._watch(session, str(tmp_path / "film.mp4"), "film.mp4")) == []


def test_refusals_are_shown_in_a_line(app: serve.WebApp, tmp_path: Path) -> None:
    app.enter(request("a"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(gradio.Error, match=r"^'text.mp4: expected a video'$"):
        list(app.track_upload(str(tmp_path / "text.mp4"), request("a")))
    assert not app.session(request("a")).playing
    with pytest.raises(gradio.Error, match="absent: its weights could not be downloaded"):
        app.choose(request("a"), "absent", ["person"], "gru", 0.1, True)
    with pytest.raises(gradio.Error, match="this tab was closed"):
        app.webcam(None, request("b"))
    with pytest.raises(ValueError, match=r"detector\.name: nonsense is unknown, nearest: "):
        instantiate(OmegaConf.create({"_target_": "track.detection.detector.Detector", "name": "nonsense"}))


def test_no_more_tabs_than_can_be_served(app: serve.WebApp) -> None:
    for number in range(serve.MAX_TABS):
        app.enter(request(str(number)))
    with pytest.raises(gradio.Error, match="too many visitors"):
        app.enter(request("more"))
    app.leave(request("0"))
    app.enter(request("more"))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (("nothing", ["person"], "gru", 0.1, True), "detector: expected one of the list"),
        (("white", ["person"], None, 0.1, True), "tracker: expected one of the list"),
        (("white", [None], "gru", 0.1, True), "classes: expected names"),
        (("white", ["person"], "gru", "0.1", True), "score: expected a number from 0 to 1"),
    ],
)
def test_a_choice_that_the_page_does_not_offer_is_refused_and_changes_nothing(
    app: serve.WebApp, choice: tuple[Any, ...], message: str
) -> None:
    app.enter(request("a"))
    before = app.session(request("a")).choice
    with pytest.raises(gradio.Error, match=message):
        app.choose(request("a"), *choice)
    assert app.session(request("a")).choice == before


def test_visits_without_a_tab_make_room_for_others(app: serve.WebApp, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(serve.MAX_TABS):
        app.enter(request(str(number)))
    monkeypatch.setattr(serve, "FULL_SECONDS", 0.0)
    app.session(request("7")).playing = True
    app.enter(request("new"))
    assert set(app.sessions) == {"7", "new"}


def test_only_so_many_watch_at_once(app: serve.WebApp, tmp_path: Path) -> None:
    for number in range(serve.MAX_PLAYING + 1):
        app.enter(request(str(number)))
        app.session(request(str(number))).playing = number < serve.MAX_PLAYING
    with pytest.raises(gradio.Error, match="10 visitors are watching already"):
        next(app.track_upload(str(tmp_path / "film.mp4"), request("10")))


def test_an_upload_that_is_no_video_is_deleted(app: serve.WebApp, tmp_path: Path) -> None:
    app.enter(request("a"))
    (tmp_path / "page.html").write_text("<script>")
    with pytest.raises(gradio.Error, match="expected a video"):
        app.keep_upload(str(tmp_path / "page.html"), request("a"))
    assert not (tmp_path / "page.html").exists()
