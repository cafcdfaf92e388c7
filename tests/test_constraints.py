"""constraints.txt names everything that is installed, and what `make audit` says of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
TOOL_CHAIN = {"pip", "setuptools", "wheel", "uv"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", line)] == []  # no markers, no ranges
    assert lines == sorted(lines, key=lambda line: line.split("==")[0])
    return dict(line.split("==") for line in lines)


def test_every_installed_distribution_is_pinned() -> None:
    installed = {normalized(one.metadata["Name"]) for one in distributions()}
    assert installed - pinned().keys() - TOOL_CHAIN - {"grutrack"} == set()


def test_every_dependency_of_every_extra_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {normalized(re.match(r"[\w.-]+", one)[0]) for one in listed}  # type: ignore[index]
    assert names - pinned().keys() - TOOL_CHAIN == {"grutrack"}


def audit(
    report: dict[str, Any] | str, *options: str, error: str = "ConnectionError: no route"
) -> tuple[int, list[str]]:
    """scripts/audit.py with a pip-audit that prints this report."""
    printed = report if isinstance(report, str) else json.dumps(report)
    code = (
        "import runpy, subprocess, sys\n"
        f"done = subprocess.CompletedProcess([], 1, {printed!r}, {'Traceback' + chr(10) + error!r})\n"
        "subprocess.run = lambda *a, **k: done\n"
        f"sys.argv = ['audit.py', *{options!r}]\n"
        f"runpy.run_path({str(ROOT / 'scripts/audit.py')!r}, run_name='__main__')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return run.returncode, run.stdout.splitlines()


SAFE = {"name": "rich", "version": "15.0.0", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
UNSAFE = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}


@pytest.mark.parametrize(
    ("versions", "code", "lines"),
    [
        ([SAFE], 0, ["audit: 0 advisories for 1 versions"]),
        ([SAFE, UNKNOWN], 0, ["audit: 0 advisories for 1 versions, not audited: torch"]),
        ([SAFE, UNSAFE], 1, ["x 1: PYSEC-1, fixed in 2", "audit: 1 advisories for 2 versions"]),
        ([UNKNOWN], 2, ["audit: the advisories cannot be reached (none of 1 versions is known there)"]),
    ],
)
def test_audit_fails_for_advisories_and_where_it_cannot_know(versions: list[Any], code: int, lines: list[str]) -> None:
    assert audit({"dependencies": versions}) == (code, lines)


def test_audit_without_a_network_passes_only_if_told_so() -> None:
    line = ["audit: the advisories cannot be reached (ConnectionError: no route)"]
    assert audit("") == (2, line)
    assert audit("", "--offline-ok") == (0, line)
    assert audit({"dependencies": [UNSAFE]}, "--offline-ok")[0] == 1


def test_an_audit_that_fails_otherwise_is_never_passed() -> None:
    error = "No module named pip_audit"
    assert audit("", "--offline-ok", error=error) == (1, ["audit: pip-audit failed (No module named pip_audit)"])
