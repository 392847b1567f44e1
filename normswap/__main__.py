"""Run the command line as ``python -m normswap``."""

from normswap.cli import run

if __name__ == "__main__":
    run()
