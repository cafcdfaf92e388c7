"""The programs that README, docs and the package docstring show are programs that run."""

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import track
from track.detection.detector import Detector, build_detector, save_detector
from track.media.video_writer import VideoWriter

HOME = Path(__file__).parent.parent
README = (HOME / "README.md").read_text()
PROGRAMS = {
    "readme": re.search(r"```python\n(.*?)```", README, re.DOTALL)[1],  # type: ignore[index]
    "docstring": textwrap.dedent(re.search(r"(    from track .*?)\n\n", track.__doc__ or "", re.DOTALL)[1]),  # type: ignore[index]
}


@pytest.mark.parametrize("place", PROGRAMS)
def test_the_program_of_at_most_eight_lines_runs_as_printed(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network, categories = build_detector("small_fcos", None)
    save_detector(network, "small_fcos", categories, tmp_path / "d.safetensors")
    with VideoWriter(tmp_path / "street.mp4") as video:
        for _ in range(5):
            video.write(torch.full((3, 64, 96), 80, dtype=torch.uint8))
    shown: list[torch.Tensor] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(track, "Detector", lambda: Detector(checkpoint="d.safetensors"))
    monkeypatch.setattr(track, "show", shown.append)
    program = PROGRAMS[place]
    assert len(program.strip().splitlines()) <= 8
    exec(program, {"show": shown.append})
    assert [image.shape for image in shown] == [(3, 64, 96)] * 5


def blocks(name: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (HOME / "docs" / name).read_text(), re.DOTALL))


def test_boxes_of_other_libraries_come_in_and_go_out() -> None:
    supervision = pytest.importorskip("supervision")
    shown: dict[str, Any] = {}
    exec(blocks("detector.md"), shown)
    assert shown["tracks"].ids.tolist() == [1]
    boxes = np.array([[10.0, 20, 50, 120], [200, 20, 240, 120]])
    shown["tracker"].reset()
    given = supervision.Detections(boxes, np.ones((2, 200, 300), bool), np.array([0.9, 0.8]), np.array([1, 1]))
    given.mask[1, :, :150] = False
    back = shown["track_supervision"](given)
    np.testing.assert_allclose(back.xyxy, boxes, atol=0.5)
    assert back.tracker_id.tolist() == [1, 2]
    assert back.mask.sum((1, 2)).tolist() == [60_000, 30_000]


def test_masks_of_a_segmentation_network_stay_with_their_tracks() -> None:
    shown: dict[str, Any] = {}
    exec(blocks("detector.md"), shown)
    shown["tracker"].reset()
    boxes = torch.tensor([[300.0, 20, 340, 120], [10, 20, 50, 120]])
    output = {"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.ones(2).long()}
    shown["track_output"](output | {"masks": torch.tensor([30, 10])})
    tracks, rest = shown["track_output"](
        {key: column.flip(0) for key, column in output.items()} | {"masks": torch.tensor([10, 30])}
    )
    assert dict(zip(tracks.ids.tolist(), rest["masks"].tolist(), strict=True)) == {1: 30, 2: 10}


def test_a_result_file_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{n + 1},1,{900 + n},500,40,100,0.9,-1,-1,-1" for n in range(100)]
    (tmp_path / "results").mkdir()
    (tmp_path / "results/MOT17-02.txt").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    exec(blocks("demo.md"), {})
    assert capsys.readouterr().out.splitlines() == [
        "person: 1 so far, 0 now",
        "line door: 1 entered (1 person), 0 left",
    ]
