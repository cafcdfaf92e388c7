"""`grutrack demo` as a file: python scripts/demo.py key=value ..."""

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
