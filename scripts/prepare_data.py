"""`grutrack prepare-data` as a file: python scripts/prepare_data.py key=value ..."""

import sys

from track.app.console.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare-data", *sys.argv[1:]]))
