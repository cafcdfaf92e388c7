"""What every test shares: one thread (on two cores the suite is ten times faster), the commands, and the real data."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

torch.set_num_threads(1)


class Finished(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Finished]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """As a full disk: no file gets longer than that many bytes, which is an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run `grutrack COMMAND OPTION ...` in this process, in the test's own folder."""
    from track.app.console.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["grutrack"])

    def run(*arguments: str) -> Finished:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return Finished(code, out, err)

    return run


@pytest.fixture(scope="session")
def track_data() -> Path:
    """The root of the real data sets; a test that asks for it is skipped where there is none."""
    root = os.environ.get("TRACK_DATA")
    if not root:
        pytest.skip("TRACK_DATA is not set")
    return Path(root)
