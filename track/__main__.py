"""The command `grutrack`, also as `python -m track`."""

from __future__ import annotations

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main())
