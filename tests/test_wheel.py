"""The product as a stranger installs it: a wheel, in an environment and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from track.datasets.streets import make_dataset
from track.formats.mot import find_sequences, write_detections

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `python -m build` makes of a clean export of the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("needs the repository")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), "source"]
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def grutrack(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment with nothing of this project but the wheel; its requirements are this one's."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (purelib,) = folder.glob("lib/python*/site-packages")
    requirements = next(path for path in sys.path if path.endswith("site-packages"))
    (purelib / "zz_requirements.pth").write_text(f"{requirements}\n")
    return folder / "bin/grutrack"


def run(grutrack: Path, *options: str, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(grutrack), *options], cwd=cwd, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_holds_configs_weights_and_no_test(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {str(file.relative_to(ROOT / "conf")) for file in (ROOT / "conf").rglob("*.yaml")}
    assert {f"track/conf/{name}" for name in configs} <= names
    assert {f"track/weights/{name}.safetensors" for name in ("gru", "crowds", "pedestrians")} <= names
    assert "track/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"track", "grutrack"}


def test_the_installed_command_predicts_and_evaluates(grutrack: Path, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "streets", 1, 20, seed=4)
    (sequence,) = find_sequences(root)
    write_detections(sequence.path / "det" / "det.txt", sequence.truth())
    program = "import track, track.conf; print(track.__file__, *track.conf.__path__)"
    where = subprocess.run([grutrack.parent / "python", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert str(ROOT) not in where.stdout, where.stdout
    assert str(grutrack.parent.parent) in where.stdout
    assert "usage: grutrack COMMAND" in run(grutrack, "--help", cwd=tmp_path)
    tracked = run(grutrack, "predict", "source=streets", "detections=det/det.txt", "output_dir=out", cwd=tmp_path)
    assert tracked.splitlines()[-1] == "results: out"
    scored = run(grutrack, "evaluate", "ground_truth=streets", "predictions=out", "output_dir=score", cwd=tmp_path)
    overall = next(line.split() for line in scored.splitlines() if line.startswith("OVERALL"))
    assert float(overall[4]) > 80  # MOTA
