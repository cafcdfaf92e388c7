"""ONNX Runtime gives torch's boxes."""

import importlib.util

import pytest
import torch
from torch import nn

from track.detection.detector import Detector, build, save_detector
from track.detection.onnx_backend import SIZES, OnnxModule, export
from track.detection.optimize import optimize_for_inference

needed = pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="needs the extra onnx")


@needed
@pytest.mark.parametrize(
    "name", ["small_fcos", "ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"]
)
def test_the_same_boxes_come_from_it(name: str) -> None:
    network, other = (build(name, None, ["background", "person"])[0].eval().requires_grad_(False) for _ in range(2))
    other.load_state_dict(network.state_dict())
    for one in (network, other):
        optimize_for_inference(one, [1], 0.05)
    export(other)
    with torch.inference_mode():
        for number in range(2):
            image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(number))
            ours, theirs = network([image])[0], other([image])[0]
            assert len(ours["boxes"]) > 0
            torch.testing.assert_close(theirs["scores"], ours["scores"], rtol=0, atol=1e-4)
            torch.testing.assert_close(theirs["boxes"].sort(0).values, ours["boxes"].sort(0).values, rtol=0, atol=0.02)


class Both(nn.Module):
    """A convolution that counts how often torch computed it, and gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 2, 3), 0

    def forward(self, given: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        self.calls += not torch.compiler.is_compiling()
        return {"a": self.conv(given[0]), "b": given[1] * 2}


@needed
def test_some_sizes_are_exported_and_the_others_computed_by_torch() -> None:
    module = Both().eval().requires_grad_(False)
    exported = OnnxModule(module)
    calls = []
    for side in [*range(8, 8 + SIZES + 2), 8, 9]:
        given = [torch.rand(1, 3, side, side), torch.rand(4)]
        expected, before = module(given), module.calls
        torch.testing.assert_close(exported(given), expected, rtol=1e-4, atol=1e-5)
        calls.append(module.calls - before)
    assert len(exported.sessions) == SIZES
    assert calls[SIZES:] == [1, 1, 0, 0]


@needed
def test_the_rest_of_a_batch_is_not_worth_an_export() -> None:
    module = Both().eval().requires_grad_(False)
    exported = OnnxModule(module)
    for count in (4, 4, 2):
        given = [torch.rand(count, 3, 8, 8), torch.rand(4)]
        torch.testing.assert_close(exported(given), module(given), rtol=1e-4, atol=1e-5)
    assert len(exported.sessions) == 1


def test_without_it_one_line_says_what_to_install(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    network, categories = build("small_fcos", None)
    file = save_detector(network, "small_fcos", categories, tmp_path / "d.safetensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"detector.onnx=true: onnx, onnxscript, onnxruntime is missing, pip install"):
        Detector(checkpoint=file, onnx=True)
