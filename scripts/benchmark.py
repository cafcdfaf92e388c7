"""`grutrack benchmark` as a file: python scripts/benchmark.py key=value ..."""

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
