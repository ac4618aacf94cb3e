"""Run one day of the sample through all five assets."""

import sys

from taxi_assets.cli.quickstart import main

if __name__ == "__main__":
    sys.exit(main())
