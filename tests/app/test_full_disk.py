"""Disks that are full or cannot be written: one line, exit code 1, earlier files are unharmed, and nothing looks whole.

A full disk is RLIMIT_FSIZE, by which the kernel refuses to make a file longer. A folder that cannot be written is a
file in its place, because permissions do not bind root.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.conftest import EVERY_BOX
from tests.conftest import Call, file_size_limit
from track.tracking.recurrent import RecurrentMotion, save_motion

FILE = "detections=det/det.txt"
TRAIN = (
    *("train", "task=motion", "data.root={streets}", "data.detections=det/det.txt", "data.batch_size=4"),
    *("trainer.max_epochs=1", "trainer.log_every_n_steps=1", "output_dir=out"),
)
DEMO = "demo", "source={streets}/street-04-00", FILE, "camera=none", "output_dir=out"
COMMANDS = {  # with the bytes that fit on the disk
    "results": (("predict", "source={streets}", FILE, "camera=none", "output_dir=out"), 200),
    "detections": (("predict", "source={streets}", "{detector}", "camera=none", "output_dir=out", *EVERY_BOX), 4000),
    "label names": (("predict", "source={streets}", "{detector}", "camera=none", "output_dir=out"), 3),
    "video": ((*DEMO, "output=out/a.mp4"), 3000),
    "csv": ((*DEMO, "output=out/a.csv"), 300),
    "jsonl": ((*DEMO, "output=out/a.jsonl"), 300),
    "txt": ((*DEMO, "output=out/a.txt"), 300),
    "images": ((*DEMO, "output=out/a.txt"), 9000),
    "events": ((*DEMO, "output=out/a.txt", "lines={a: [160,240,160,0]}"), 20),
    "figures": (("evaluate", "ground_truth={streets}", "predictions=given", "output_dir=out"), 100),
    "config": (("evaluate", "ground_truth={streets}", "predictions=given", "output_dir=out"), 500),
    "plots": (("evaluate", "ground_truth={streets}", "predictions=given", "output_dir=out", "plots=true"), 3000),
    "checkpoint": (TRAIN, 20_000),
    **{
        f"convert to {name}": (("convert", "source={streets}", f"format={name}", "output=out"), 400)
        for name in ("mot", "cvat", "coco", "csv", "jsonl", "kitti", "visdrone")
    },
}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def command(request: pytest.FixtureRequest, streets: Path, detector: str, tmp_path: Path, call: Call) -> list[str]:
    """The options of the command, whose inputs are there."""
    if "predictions=given" in COMMANDS[request.param][0]:
        assert call("predict", f"source={streets}", FILE, "camera=none", "output_dir=given").code == 0
    options = [*COMMANDS[request.param][0], "hydra.output_subdir=null"]
    return [one.replace("{streets}", str(streets)).replace("{detector}", detector) for one in options]


@pytest.mark.parametrize(
    ("command", "size"), [(n, c[1]) for n, c in COMMANDS.items()], indirect=["command"], ids=COMMANDS
)
def test_a_full_disk_is_one_line_and_nothing_that_looks_whole(
    command: list[str], size: int, tmp_path: Path, call: Call
) -> None:
    with file_size_limit(size):
        full = call(*command)
    assert full.code == 1
    assert len(full.err.strip().splitlines()) == 1, full.err
    left = files_in(tmp_path / "out")
    assert [name for name in left if name.endswith(".part")] == []
    done = call(*command)
    assert done.code == 0, done.err
    whole = files_in(tmp_path / "out")
    cut = {name for name in left if "partial" not in name and left[name] != whole[name]}
    assert cut == set()
    with file_size_limit(size):
        assert call(*command).code == 1
    again = files_in(tmp_path / "out")
    lost = {name for name in whole if "partial" not in name and again.get(name) != whole[name]}
    assert lost == set()


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_a_folder_that_cannot_be_written_is_one_line(command: list[str], tmp_path: Path, call: Call) -> None:
    (tmp_path / "out").write_text("mine")
    refused = call(*command)
    assert refused.code == 1
    assert len(refused.err.strip().splitlines()) == 1, refused.err
    assert (tmp_path / "out").read_text() == "mine"


def test_weights_that_do_not_fit_leave_the_old_ones(tmp_path: Path) -> None:
    file = save_motion(RecurrentMotion(hidden=4), tmp_path / "a.safetensors")
    before = file.read_bytes()
    with file_size_limit(1000), pytest.raises(OSError, match="File too large"):
        save_motion(RecurrentMotion(hidden=8), file)
    assert files_in(tmp_path) == {"a.safetensors": before}


def test_a_working_directory_that_cannot_be_written_is_one_line(streets: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "outputs").write_text("mine")
    refused = call("predict", f"source={streets}", FILE)
    assert refused.code == 1
    assert len(refused.err.strip().splitlines()) == 1, refused.err
    assert "outputs" in refused.err
