"""`grutrack train` as a file: python scripts/train.py key=value ..."""

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
