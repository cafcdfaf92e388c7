"""grutrack predict: result files, what an error leaves, the detection cache, and names as people type them."""

from __future__ import annotations

import gc
import re
import shutil
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.app.conftest import EVERY_BOX
from tests.conftest import Call
from track.app.console.outputs import OutputFiles
from track.app.predict import TrackFile
from track.formats.mot import read_tracks
from track.media.sources import ImageFolder, find_sources
from track.media.video_writer import VideoWriter
from track.pipeline import Pipeline
from track.tracking.motion import Kalman


def make_video(sequence: Path, file: Path, repeats: int = 1) -> Path:
    """The images of a sequence as a video of 15 frames per second."""
    with VideoWriter(file, 15) as video:
        for _ in range(repeats):
            for frame in ImageFolder(sequence / "img1"):
                video.write(frame.image)
    return file


def test_predict_then_evaluate_scores_perfect_detections_highly(streets: Path, tmp_path: Path, call: Call) -> None:
    options = "detections=det/det.txt", "tracker=bytetrack", "output_dir=out"
    assert call("predict", f"source={streets}", *options).out.splitlines()[-1] == "results: out"
    scored = call("evaluate", f"ground_truth={streets}", "predictions=out", "output_dir=score")
    assert scored.code == 0, scored.err
    rows = dict(line.split(",", 1) for line in (tmp_path / "score" / "metrics.csv").read_text().splitlines())
    assert rows["sequence"] == "HOTA,DetA,AssA,MOTA,IDF1,IDSW,FP,FN,Frag,MT,ML,AssPr,AssRe,Short,IDs"
    assert list(rows) == ["sequence", "street-04-00", "street-04-01", "OVERALL"]
    assert float(rows["OVERALL"].split(",")[3]) > 85
    assert (tmp_path / "out" / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("detections", "street-04-01/det/det.txt, line 1: expected finite numbers"),
        ("camera motion", "street-04-01/gmc.txt: no such file"),
        ("result", "out/street-04-01.txt: exists and is no result of this program"),
        ("input", "expected a file that is neither an input nor another output"),
    ],
)
def test_the_last_source_is_refused_before_the_first_is_tracked(
    streets: Path, tmp_path: Path, call: Call, fault: str, message: str
) -> None:
    root, out = shutil.copytree(streets, tmp_path / "data"), tmp_path / "out"
    out.mkdir()
    detections = root / "street-04-01/det/det.txt"
    gmc = "".join(f"{frame},1,0,0,0,1,0\n" for frame in range(1, 26))
    for name in ("street-04-00", "street-04-01"):
        (root / name / "gmc.txt").write_text(gmc)
    if fault == "detections":
        detections.write_text("1,-1,10,10,20,nan,0.9\n")
    elif fault == "camera motion":
        (root / "street-04-01/gmc.txt").unlink()
    elif fault == "result":
        (out / "street-04-01.txt").write_text("mine")
    else:
        (out / "street-04-00.txt").symlink_to(detections)  # the second source's
    done = call("predict", f"source={root}", "detections=det/det.txt", "camera=file", "output_dir=out")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert message in done.err
    assert {file.name for file in out.iterdir() if not file.is_symlink()} <= {"street-04-01.txt"}
    assert done.out == ""  # no bar, and no empty line of one


def test_a_rerun_that_is_killed_before_its_first_frame_keeps_the_rows_of_the_last_run(tmp_path: Path) -> None:
    (tmp_path / "a.partial.txt").write_text("1,1,10,10,20,40,0.9,1,1\n")
    with OutputFiles([tmp_path / "a.txt"]) as outputs, closing(TrackFile(outputs.written[0], Kalman())):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["a.partial.txt"]
    assert (tmp_path / "a.partial.txt").stat().st_size > 0


def test_many_videos_of_a_folder_are_not_open_at_once(streets: Path, tmp_path: Path) -> None:
    for index in range(5):
        make_video(streets / "street-04-00", tmp_path / f"{index}.mp4")
    before = len(list(Path("/proc/self/fd").iterdir()))
    sources = list(find_sources(tmp_path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [sum(1 for _ in source) for source in sources] == [25] * 5


def test_a_refused_rerun_keeps_the_old_results(streets: Path, tmp_path: Path, call: Call) -> None:
    arguments = "predict", f"source={streets}", "tracker=bytetrack", "output_dir=out"
    assert call(*arguments, "detections=det/det.txt").code == 0
    before = (tmp_path / "out" / "street-04-00.txt").read_bytes()
    failed = call(*arguments, "detections=det/mistyped.txt")
    assert failed.code == 1
    assert "street-04-00/det/mistyped.txt: no such file" in failed.err
    assert (tmp_path / "out" / "street-04-00.txt").read_bytes() == before


def test_a_video_that_stops_early_keeps_the_rows_before(
    streets: Path, detector: str, tmp_path: Path, call: Call
) -> None:
    file = make_video(streets / "street-04-00", tmp_path / "a.mp4", repeats=4)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    done = call("predict", "source=a.mp4", detector, *EVERY_BOX, "output_dir=out")
    assert done.code == 1
    assert re.fullmatch(r"error: .*a.mp4: stopped after frame \d+, expected 100", done.err.strip())
    rows = (tmp_path / "out" / "a.partial.txt").read_text().splitlines()
    assert f"frame {max(int(row.split(',')[0]) for row in rows)}," in done.err
    assert not (tmp_path / "out" / "a.txt").exists()


def test_a_cut_result_is_not_scored_and_a_rerun_replaces_it(streets: Path, tmp_path: Path, call: Call) -> None:
    root = shutil.copytree(streets, tmp_path / "data")
    image = root / "street-04-01/img1/000020.jpg"
    whole = image.read_bytes()
    image.write_bytes(b"")
    options = "predict", f"source={root}", "detections=det/det.txt", "camera=estimate", "output_dir=out"
    assert call(*options).code == 1
    assert {file.name for file in (tmp_path / "out").glob("*.txt")} == {"street-04-00.txt", "street-04-01.partial.txt"}
    refused = call("evaluate", f"ground_truth={root}", "predictions=out")
    assert refused.code == 1
    assert refused.err.startswith("error: out/street-04-01.partial.txt: this run was cut, expected complete results")
    image.write_bytes(whole)
    again = call(*options)
    assert again.code == 0, again.err
    assert "street-04-01: tracked again, the last run was cut" in again.out
    assert {file.name for file in (tmp_path / "out").glob("*.txt")} == {"street-04-00.txt", "street-04-01.txt"}


def test_a_file_that_is_no_result_is_not_replaced(streets: Path, tmp_path: Path, call: Call) -> None:
    options = f"source={streets}", "detections=det/det.txt", "camera=none", "output_dir=out"
    foreign = tmp_path / "out/street-04-00.txt"
    foreign.parent.mkdir()
    foreign.write_bytes((streets / "street-04-00/det/det.txt").read_bytes())
    refused = call("predict", *options)
    assert refused.code == 1
    assert "street-04-00.txt: exists and is no result of this program; overwrite=true replaces it" in refused.err
    assert foreign.read_bytes() == (streets / "street-04-00/det/det.txt").read_bytes()
    assert [call("predict", *options, *more).code for more in (["overwrite=true"], [])] == [0, 0]


def test_detections_are_cached_while_nothing_changed(streets: Path, detector: str, tmp_path: Path, call: Call) -> None:
    options = [f"source={streets}", "sequences=[street-04-00]", detector, "output_dir=out", "camera=none"]
    first = call("predict", *options)
    assert first.code == 0, first.err
    assert "earlier run" not in first.out
    results, file = tmp_path / "out/street-04-00.txt", tmp_path / "out/street-04-00/det/small_fcos.txt"
    tracked, detected = results.read_text(), file.read_text()
    assert len(detected.splitlines()) > 25
    assert "street-04-00: detections of an earlier run" in call("predict", *options).out
    assert results.read_text() == tracked
    assert "earlier run" not in call("predict", *options, "detector.min_score=0.55").out
    assert file.read_text() != detected


def test_an_unreadable_image_stops_the_run_or_is_skipped(
    streets: Path, detector: str, tmp_path: Path, call: Call
) -> None:
    shutil.copytree(streets / "street-04-00", tmp_path / "street-04-00")
    (tmp_path / "street-04-00/img1/000005.jpg").write_bytes(b"")
    options = ["source=street-04-00", detector, "output_dir=out"]
    stopped = call("predict", *options)
    assert stopped.code == 1
    assert re.fullmatch(r"error: .*000005.jpg: expected an image that can be read\n", stopped.err)
    passed = call("predict", *options, "on_error=skip")
    assert passed.code == 0, passed.err
    assert re.search(r"skipped: 1, the first: .*000005.jpg: expected an image", passed.out)
    detected = {int(row.split(",")[0]) for row in (tmp_path / "out/street-04-00/det/small_fcos.txt").open()}
    assert detected == set(range(1, 26)) - {5}


@pytest.mark.parametrize(
    "name", ["video (1).mp4", "clip [x].mp4", "a=b.mp4", "a,b.mp4", "walk#2.mp4", "it's.mp4", "{x}: y.mp4", "[a,b].mp4"]
)
def test_a_video_is_named_as_it_is_typed(name: str, streets: Path, tmp_path: Path, call: Call) -> None:
    file = make_video(streets / "street-04-00", tmp_path / name)
    shutil.copy(streets / "street-04-00/det/det.txt", tmp_path / "det = [1].txt")
    done = call("predict", f"source={name}", "detections=det = [1].txt", "camera=none", "output_dir=out (1)")
    assert done.code == 0, done.err
    assert len(read_tracks(tmp_path / "out (1)" / f"{file.stem}.txt", 25)[10]) > 2


def test_a_folder_of_videos_is_a_source(streets: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("street-04-00", "street-04-01"):
        make_video(streets / name, tmp_path / "videos" / f"{name}.mp4")
        (tmp_path / "videos" / name).mkdir()
        shutil.copy(streets / name / "det/det.txt", tmp_path / "videos" / name / "det.txt")
    options = "source=videos", "detections=det.txt", "tracker=bytetrack", "camera=none"
    done = call("predict", *options, "output_dir=out")
    assert done.code == 0, done.err
    assert sorted(file.name for file in (tmp_path / "out").glob("*.txt")) == ["street-04-00.txt", "street-04-01.txt"]
    first, second = (read_tracks(tmp_path / f"out/street-04-0{k}.txt", 25) for k in (0, 1))
    assert first[10].boxes.tolist() != second[10].boxes.tolist()
    some = call("predict", *options, "sequences=[street-04-01]", "output_dir=some")
    assert some.code == 0, some.err
    assert [file.name for file in (tmp_path / "some").glob("*.txt")] == ["street-04-01.txt"]


def test_frames_after_a_skipped_image_keep_their_numbers(streets: Path, tmp_path: Path, call: Call) -> None:
    shutil.copytree(streets / "street-04-00/img1", tmp_path / "images")
    (tmp_path / "images/000005.jpg").write_bytes(b"")
    shutil.copy(streets / "street-04-00/det/det.txt", tmp_path / "det.txt")
    done = call("predict", "source=images", "detections=det.txt", "on_error=skip", "output_dir=out")
    assert done.code == 0, done.err
    frames = {int(row.split(",")[0]) for row in (tmp_path / "out/images.txt").open()}
    assert frames == set(range(1, 26)) - {5}


def test_detections_of_several_videos_are_never_one_shared_file(streets: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        make_video(streets / "street-04-00", tmp_path / f"videos/{name}.mp4")
    shutil.copy(streets / "street-04-00/det/det.txt", tmp_path / "videos" / "det.txt")
    done = call("predict", "source=videos", "detections=det.txt", "camera=none", "output_dir=out")
    assert done.code == 1
    assert "videos/a/det.txt: no such file, expected the detections of a" in done.err


def test_images_overwritten_in_place_are_detected_again(
    streets: Path, detector: str, tmp_path: Path, call: Call
) -> None:
    shutil.copytree(streets / "street-04-00/img1", tmp_path / "images")
    options = "source=images", detector, "camera=none", "output_dir=out"
    assert call("predict", *options).code == 0
    assert "earlier run" in call("predict", *options).out
    for file in (streets / "street-04-01/img1").iterdir():
        (tmp_path / "images" / file.name).write_bytes(file.read_bytes())
    assert "earlier run" not in call("predict", *options).out


def test_predict_and_demo_give_the_same_rows(streets: Path, detector: str, tmp_path: Path, call: Call) -> None:
    make_video(streets / "street-04-00", tmp_path / "a.mp4")
    for camera in ("auto", "none"):
        shared = ["source=a.mp4", detector, "detector.min_score=0.52", f"camera={camera}"]
        assert call("predict", *shared, f"output_dir={camera}").code == 0
        shown = call("demo", *shared, f"output={camera}/demo.txt", f"output_dir={camera}/demo")
        assert shown.code == 0, shown.err
        predicted = (tmp_path / camera / "a.txt").read_text()
        assert predicted.splitlines() == (tmp_path / camera / "demo.txt").read_text().splitlines()
        assert len(predicted.splitlines()) > 50
    assert (tmp_path / "auto/a.txt").read_text() != (tmp_path / "none/a.txt").read_text()


def test_demo_of_a_sequence_reads_its_camera_motion_as_predict_does(streets: Path, tmp_path: Path, call: Call) -> None:
    shared = [f"source={streets / 'street-04-00'}", "detections=det/det.txt"]
    assert call("predict", *shared, "output_dir=out").code == 0
    assert call("demo", *shared, "output=demo.txt", "output_dir=demo").code == 0
    assert (tmp_path / "out/street-04-00.txt").read_text() == (tmp_path / "demo.txt").read_text()
    assert call("predict", *shared, "camera=none", "output_dir=still").code == 0
    assert (tmp_path / "still/street-04-00.txt").read_text() != (tmp_path / "demo.txt").read_text()


@pytest.mark.data
def test_predict_and_demo_give_the_same_rows_of_a_real_street(track_data: Path, tmp_path: Path, call: Call) -> None:
    shared = [f"source={track_data}/MOT15/train/TUD-Campus", "detector.name=fcos_mobilenet_v2_fpn"]
    assert call("predict", *shared, "output_dir=out").code == 0
    assert call("demo", *shared, "output=demo.txt", "output_dir=demo").code == 0
    rows = (tmp_path / "demo.txt").read_text()
    assert rows == (tmp_path / "out/TUD-Campus.txt").read_text()
    assert len(rows.splitlines()) > 200


def test_interpolation_fills_a_gap_and_says_that_it_looks_ahead(streets: Path, tmp_path: Path, call: Call) -> None:
    shared = [f"source={streets}", "detections=det/det.txt", "tracker=bytetrack", "camera=none"]
    assert call("predict", *shared, "output_dir=online").code == 0
    offline = call("predict", *shared, "postprocess=interpolate", "output_dir=offline")
    assert "these results use future frames" in offline.out
    online, filled = (
        {tuple(row.split(",")[:2]) for row in (tmp_path / folder / "street-04-00.txt").open()}
        for folder in ("online", "offline")
    )
    assert online < filled
    for identity in {one for _, one in filled}:
        frames = sorted(int(frame) for frame, one in filled if one == identity)
        assert frames == list(range(frames[0], frames[-1] + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["source=absent", "detections=det/det.txt"], "absent: no such file"),
        (["source=empty", "detections=det/det.txt"], "empty: no sequences below it"),
        (["source=.", "detector.name=nonsense"], "detector.name: nonsense is unknown, nearest: "),
        (
            ["source=.", "detections=x.txt", "camera=maybe"],
            "camera: expected one of auto, none, file, estimate, got may",
        ),
        (["source=.", "detector.name=small_fcos"], "small_fcos has no official weights: give a checkpoint"),
        (["source=0", "detections=x.txt"], "camera 0: "),
        (["detections=x.txt"], "source: expected a value, see --help"),
        (["source=a.mp4", "detections=x.txt", "camera=file"], "camera=file: a is no MOTChallenge sequence"),
        (
            ["source=a.mp4", "detections=x.txt", "stride=2"],
            "a.mp4: split, stride and drop_rate apply to MOTChallenge seq",
        ),
        (
            ["source=a.mp4", "detections=x.txt", "sequences=[a]"],
            "a.mp4: sequences= applies to a folder of sequences or vi",
        ),
        (["sorce=."], "sorce: no such option, nearest: source"),
        (["-m", "sorce=a,b"], "sorce: no such option, nearest: source"),
        (["source=a.mp4", "stride=abc"], "stride: expected a whole number, got abc"),
        (["source=a.mp4", "drop_rate=abc"], "drop_rate: expected a number, got abc"),
        (["source=a.mp4", "tracker.max_age=abc"], "tracker.max_age: expected a number, got abc"),
        (["source=a.mp4", "tracker.min_hits=1.5"], "tracker.min_hits: expected a whole number, got 1.5"),
        (["source=a.mp4", "detector.onnx=maybe"], "detector.onnx: expected true or false, got maybe"),
        (["source=a.mp4", "detections=x.txt", "sequences=5"], "a.mp4: sequences= applies to a folder"),
        (["source=a.mp4", "detections=x.txt", "output_dir=a.mp4"], "output_dir: expected a folder that can be written"),
        (["detector.nme=x"], "detector.nme: no such option, nearest: detector.name"),
        (["tracker=nonsense", "source=."], "tracker"),
        (["a.mp4"], "a.mp4: expected key=value, such as source=a.mp4; see --help"),
        (["source=a.mp4", "+foo=1"], "foo: no such option"),
        (["source=a.mp4", "tracker=bytetrack", "tracker.weights=x"], "tracker.weights: no such option, nearest: track"),
        (["source=a.mp4", "detector.batch_size=abc"], "detector.batch_size: expected a whole number, got abc"),
        (["source=a.mp4", "stride=0"], "stride: expected at least 1, got 0"),
        (["source=a.mp4", "-m", "output_dir=out", "camera=none,auto"], "output_dir: expected none with -m"),
        (["source=streets", "detections=det/det.txt", "camera=estimate"], "has no images and no video"),
        (["source=.", "tracker.min_hits=[1"], "tracker.min_hits=[1: expected key=value"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_1(
    streets: Path, tmp_path: Path, call: Call, options: list[str], message: str
) -> None:
    make_video(streets / "street-04-00", tmp_path / "a.mp4")
    (tmp_path / "empty").mkdir()
    for name in ("seqinfo.ini", "det/det.txt"):
        (tmp_path / "streets/one" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(streets / "street-04-00" / name, tmp_path / "streets/one" / name)
    done = call("predict", *options)
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert message in done.err


def test_options_without_an_effect_are_named(streets: Path, call: Call) -> None:
    done = call("predict", f"source={streets}", "detections=det/det.txt", "detector.min_score=0.5", "output_dir=out")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("note: detector.min_score has no effect beside detections=\n")


def test_class_names_of_an_earlier_detector_do_not_remain(
    streets: Path, tmp_path: Path, detector: str, call: Call
) -> None:
    options = f"source={streets}", "sequences=street-04-00", "camera=none", "output_dir=out"
    labels = tmp_path / "out/labels.txt"
    assert call("predict", *options, detector).code == 0
    assert labels.read_text() == "person\n"
    assert call("predict", *options, "detections=det/det.txt").code == 0
    assert not labels.exists()
    labels.write_text("mine\n")
    assert call("predict", *options, "detections=det/det.txt").code == 0
    assert labels.read_text() == "mine\n"


def test_linked_sequences_are_tracked_under_their_own_names(streets: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/mine").symlink_to(streets / "street-04-00")
    (tmp_path / "linked/loop").symlink_to(tmp_path / "linked")
    done = call("predict", "source=linked", "detections=det/det.txt", "output_dir=out")
    assert done.code == 0, done.err
    assert [file.name for file in (tmp_path / "out").glob("*.txt")] == ["mine.txt"]


def test_a_refused_run_leaves_the_config_and_a_foreign_config_is_never_replaced(
    streets: Path, tmp_path: Path, call: Call
) -> None:
    options = f"source={streets}", "detections=det/det.txt", "camera=none", "output_dir=out"
    assert call("predict", *options, "split=val-half").code == 0
    before = (tmp_path / "out/config.yaml").read_text()
    assert call("predict", *options, "camera=maybe").code == 1
    assert (tmp_path / "out/config.yaml").read_text() == before
    (tmp_path / "out/config.yaml").write_text("mine: 1\n")
    assert call("predict", *options).code == 0
    assert (tmp_path / "out/config.yaml").read_text() == "mine: 1\n"


def test_detections_beside_a_video_are_not_replaced_by_its_results(streets: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "films").mkdir()
    make_video(streets / "street-04-00", tmp_path / "films/v.mp4")
    detections = (streets / "street-04-00/det/det.txt").read_bytes()
    (tmp_path / "films/v.txt").write_bytes(detections)
    refused = call("predict", "source=films/v.mp4", "detections=v.txt", "output_dir=films", "overwrite=true")
    assert refused.code == 1
    assert "neither an input nor another output" in refused.err
    assert (tmp_path / "films/v.txt").read_bytes() == detections


def test_the_detections_of_a_video_are_freed_after_it(
    streets: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[object]] = []
    alive: list[int] = []

    def track_video(pipeline: Pipeline, *args: Any) -> None:
        gc.collect()
        alive.append(sum(one() is not None for one in kept))
        kept.append(weakref.ref(pipeline.detections))

    monkeypatch.setattr("track.app.predict.track_video", track_video)
    done = call("predict", f"source={streets}", "detections=det/det.txt", "output_dir=out")
    assert done.code == 0, done.err
    assert len(alive) > 1
    assert alive == [0] * len(alive)
