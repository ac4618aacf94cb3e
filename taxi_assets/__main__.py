"""`python -m taxi_assets`, which is the command `taxi-assets`."""

import sys

from taxi_assets.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
