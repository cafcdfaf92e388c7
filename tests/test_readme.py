"""The eight lines that README and the package docstring show are a program that runs."""

import re
import textwrap
from pathlib import Path

import pytest
import torch

import track
from track.detector import Detector, build, save_detector
from track.video import VideoWriter

README = (Path(__file__).parent.parent / "README.md").read_text()
PROGRAMS = {
    "readme": re.search(r"```python\n(.*?)```", README, re.DOTALL)[1],  # type: ignore[index]
    "docstring": textwrap.dedent(re.search(r"(    from track .*?)\n\n", track.__doc__ or "", re.DOTALL)[1]),  # type: ignore[index]
}


@pytest.mark.parametrize("place", PROGRAMS)
def test_the_eight_lines_run_as_printed(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, categories = build("small_fcos", None)
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
    assert [picture.shape for picture in shown] == [(3, 64, 96)] * 5
