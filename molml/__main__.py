"""`python -m molml`, the same as the command `molml`; needed by `torchrun -m molml`."""

import sys

from molml.cli import main

if __name__ == "__main__":
    sys.exit(main())
