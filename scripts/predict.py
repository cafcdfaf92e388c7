"""`grutrack predict` as a file: python scripts/predict.py key=value ..."""

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
