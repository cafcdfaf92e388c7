"""The direction of dependencies, read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    {
        "track.structures",
        "track.checkpoint",
        "track.evaluation.calibration",
        "track.detection.architectures",
        "track.datasets.download",
        "track.detection.optimize",
        "track.detection.onnx_backend",
    },
    {
        "track.tracking.association",
        "track.tracking.graph_network",
        "track.tracking.motion",
        "track.tracking.camera_motion",
        "track.formats.mot",
        "track.media.sources",
        "track.media.capture",
        "track.display.draw",
        "track.evaluation.tracking",
        "track.detection.cache",
        "track.tracking.smoothing",
        "track.analytics",
        "track.media.results",
    },
    {
        "track.detection.detector",
        "track.display.window",
        "track.evaluation.detection",
        "track.evaluation.plots",
        "track.datasets.streets",
        "track.datasets.crowds",
        "track.tracking.tracker",
        "track.display.rerun",
        "track.display.session",
    },
    {"track"},
    {"track.training"},
]
ONLY_IN = {
    "lightning": ("track/training/", "scripts/train.py", "scripts/walkthrough.py", "tests/"),
    "hydra": ("scripts/", "tests/"),
    "omegaconf": ("scripts/", "tests/"),
    "rerun": ("track/viewer.py", "tests/"),
    "cv2": ("track/video.py", "track/live.py", "track/window.py", "track/draw.py", "track/camera.py", "tests/"),
}
FILES = sorted(f for folder in ("track", "scripts", "tests") for f in (ROOT / folder).rglob("*.py"))


def imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def layer(module: str) -> int:
    name = "track.training" if module.startswith("track.training") else module
    return next(i for i, names in enumerate(LAYERS) if name in names)


def test_every_module_has_a_layer_and_imports_only_lower_or_equal_ones() -> None:
    for file in (ROOT / "track").rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        uses = [name for name in imported(file) if name.split(".")[0] == "track"]
        assert all(layer(name) <= layer(module) for name in uses), (module, uses)


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_stays_where_it_belongs(library: str) -> None:
    users = [str(f.relative_to(ROOT)) for f in FILES if any(n.split(".")[0] == library for n in imported(f))]
    assert users
    assert [user for user in users if not user.startswith(ONLY_IN[library])] == []
