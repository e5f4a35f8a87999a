"""Where the process begins: run by path, `python …/testing/world`."""

import sys
from pathlib import Path

if not __package__:  # As PEP 366 has it: the package is `world` here, without its parents.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "world"

from .control import main

if __name__ == "__main__":
    main()
