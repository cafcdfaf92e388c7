"""`grutrack export` as a file: python scripts/export.py key=value ..."""

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
