"""The guard as a program, run by its file under `python -I -S` (see `hamgr/guard/launch.py`)."""

import os
import sys

# -I and -S leave nothing but the standard library on the path.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from hamgr.guard.program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
