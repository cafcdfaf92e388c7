"""`grutrack evaluate` as a file: python scripts/evaluate.py key=value ..."""

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
