"""ONNX Runtime gives torch's boxes."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from track.detection.detector import Detector, build_detector, save_detector
from track.detection.onnx_backend import MAX_SIZES, OnnxModule, use_onnx_runtime
from track.detection.optimize import optimize_for_inference

needed = pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="needs the extra onnx")


@needed
@pytest.mark.parametrize(
    "name", ["small_fcos", "ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"]
)
def test_the_boxes_are_those_of_torch(name: str) -> None:
    network, other = (
        build_detector(name, None, ["background", "person"])[0].eval().requires_grad_(False) for _ in range(2)
    )
    other.load_state_dict(network.state_dict())
    for one in (network, other):
        optimize_for_inference(one, [1], 0.05)
    use_onnx_runtime(other)
    with torch.inference_mode():
        for number in range(2):
            image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(number))
            ours, theirs = network([image])[0], other([image])[0]
            assert len(ours["boxes"]) > 0
            torch.testing.assert_close(theirs["scores"], ours["scores"], rtol=0, atol=1e-4)
            torch.testing.assert_close(theirs["boxes"].sort(0).values, ours["boxes"].sort(0).values, rtol=0, atol=0.02)


class CountingConvolution(nn.Module):
    """A convolution that counts how often torch computed it, from a list to a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 2, 3), 0

    def forward(self, inputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        self.calls += not torch.compiler.is_compiling()
        return {"a": self.conv(inputs[0]), "b": inputs[1] * 2}


@needed
def test_the_first_sizes_are_exported_and_the_others_computed_by_torch() -> None:
    module = CountingConvolution().eval().requires_grad_(False)
    exported = OnnxModule(module)
    calls = []
    for side in [*range(8, 8 + MAX_SIZES + 2), 8, 9]:
        inputs = [torch.rand(1, 3, side, side), torch.rand(4)]
        expected, before = module(inputs), module.calls
        torch.testing.assert_close(exported(inputs), expected, rtol=1e-4, atol=1e-5)
        calls.append(module.calls - before)
    assert len(exported.sessions) == MAX_SIZES
    assert calls[MAX_SIZES:] == [1, 1, 0, 0]


@needed
def test_a_partial_batch_is_not_exported() -> None:
    module = CountingConvolution().eval().requires_grad_(False)
    exported = OnnxModule(module)
    for count in (4, 4, 2):
        inputs = [torch.rand(count, 3, 8, 8), torch.rand(4)]
        torch.testing.assert_close(exported(inputs), module(inputs), rtol=1e-4, atol=1e-5)
    assert len(exported.sessions) == 1


def test_without_onnx_runtime_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, categories = build_detector("small_fcos", None)
    file = save_detector(network, "small_fcos", categories, tmp_path / "d.safetensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"detector.onnx=true: onnx, onnxscript, onnxruntime is missing, pip install"):
        Detector(checkpoint=file, onnx=True)
