"""Run the command line as ``python -m normswap``."""

import sys

from normswap.cli import main

if __name__ == "__main__":
    sys.exit(main())
