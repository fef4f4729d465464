"""`make demo`."""

import sys

from habeas_demo.program import main

if __name__ == "__main__":
    sys.exit(main())
