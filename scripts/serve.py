"""`grutrack serve` as a file: python scripts/serve.py key=value ..."""

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
