"""Run one day of the sample through all five assets."""

import sys

from taxi_assets.cli.entry import main

if __name__ == "__main__":
    sys.exit(main(["quickstart", *sys.argv[1:]]))
