"""`grutrack convert` as a file: python scripts/convert.py key=value ..."""

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
