"""The direction of imports, read from the source: strict between rooms and within them, and who may import what."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = [  # each imports from those before it alone
    *(
        "structures",
        "geometry",
        "checkpoint",
        "engine",
        "formats",
        "media",
        "tracking",
        "smoothing",
        "analytics",
        "display",
        "evaluation",
    ),
    *("detection", "pipeline", "datasets", "training", "app"),
]
ONLY_IN = {
    "lightning": ("track/training/", "track/app/train.py", "tests/"),
    "hydra": ("track/app/", "tests/", "scripts/"),
    "omegaconf": ("track/app/", "tests/", "scripts/"),
    "rerun": ("track/display/rerun.py", "tests/"),
    "gradio": ("track/app/serve.py", "tests/"),
    "cv2": ("track/media/", "track/display/", "track/tracking/camera_motion.py", "tests/"),
}
FILES = sorted(f for folder in ("track", "scripts", "tests") for f in (ROOT / folder).rglob("*.py"))
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in (ROOT / "track").rglob("*.py")
}


def imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def own(module: str) -> set[str]:
    """The modules of the package that a module imports; the package's face is not followed."""
    return {name for name in imported(MODULES[module]) if name in MODULES and name not in ("track", module)}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_imports_only_the_rooms_before_it() -> None:
    for module in MODULES.keys() - {"track", "track.__main__"}:
        below = ROOMS[: ROOMS.index(room(module)) + 1]
        assert [name for name in own(module) if room(name) not in below] == [], module


def test_there_is_no_circle_between_files() -> None:
    heights: dict[str, int] = {}

    def height(module: str, above: tuple[str, ...]) -> int:
        assert module not in above, f"a circle: {' -> '.join([*above, module])}"
        if module not in heights:
            heights[module] = 1 + max((height(name, (*above, module)) for name in own(module)), default=0)
        return heights[module]

    for module in MODULES:
        height(module, ())
    assert heights["track.structures"] == 1
    assert heights["track.app.evaluate"] > heights["track.app.predict"] > heights["track.pipeline"]


def test_only_the_app_reads_the_package_face() -> None:
    users = [module for module in MODULES if "track" in imported(MODULES[module])]
    assert sorted(users) == ["track.app.console.cli", "track.app.export"]  # for the version


def test_scripts_import_no_script() -> None:
    scripts = {file.stem for file in (ROOT / "scripts").glob("*.py")}
    assert [file.name for file in (ROOT / "scripts").glob("*.py") if imported(file) & scripts] == []


def test_a_room_holds_at_most_nine_files() -> None:
    for folder in {file.parent for file in MODULES.values()}:
        assert len([file for file in folder.glob("*.py") if not file.name.startswith("__")]) <= 9, folder


def test_every_package_is_installed() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {name for name, file in MODULES.items() if file.name == "__init__.py"}
    data = {"track.weights", *(f"track.conf{group}" for group in ("", ".task", ".tracker", ".trainer"))}
    assert listed == folders | data


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_stays_where_it_belongs(library: str) -> None:
    users = [str(f.relative_to(ROOT)) for f in FILES if any(n.split(".")[0] == library for n in imported(f))]
    assert users
    assert [user for user in users if not user.startswith(ONLY_IN[library])] == []
