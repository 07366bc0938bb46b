"""The console command `pax`."""

import sys

from paxml.launch.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
