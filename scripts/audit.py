"""Look for known vulnerabilities of the versions in constraints.txt.

    make audit                              # or: python scripts/audit.py [--offline-ok], with pip-audit installed

Exits with 0 if there are none, with 1 if there are or pip-audit fails, and with 2 if the advisories cannot be reached:
that a version is safe was not found out then. With --offline-ok that is 0.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
COMMAND = ("-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")

NETWORK = re.compile(r"ConnectionError|Timeout|ProxyError|SSLError|HTTPError|could not connect|timed out", re.I)


def main(arguments: list[str]) -> int:
    """Run pip-audit; returns the exit code."""
    command = [sys.executable, *COMMAND, "--requirement", str(CONSTRAINTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    code, lines = judge(done.stdout, done.stderr)
    print("\n".join(lines))
    return 0 if code == 2 and "--offline-ok" in arguments else code


def judge(report: str, complaint: str) -> tuple[int, list[str]]:
    """The exit code and the lines to print for pip-audit's JSON report, which is none if it failed."""
    try:
        versions: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        lines = complaint.strip().splitlines() or ["no report"]
        unreachable = [line for line in lines if NETWORK.search(line)]
        if unreachable:
            return 2, [f"audit: the advisories cannot be reached ({unreachable[-1]})"]
        return 1, [f"audit: pip-audit failed ({lines[-1]})"]
    audited = [one for one in versions if "vulns" in one]
    if not audited:  # an index without advisories, such as a mirror, knows none of them
        return 2, [f"audit: the advisories cannot be reached (none of {len(versions)} versions is known there)"]
    found = [
        f"{one['name']} {one['version']}: {advisory['id']}, fixed in {', '.join(advisory['fix_versions']) or 'none'}"
        for one in audited
        for advisory in one["vulns"]
    ]
    summary = f"audit: {len(found)} advisories for {len(audited)} versions"
    unknown = [one["name"] for one in versions if "vulns" not in one]
    return int(bool(found)), [*found, summary + (f", not audited: {', '.join(unknown)}" if unknown else "")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
