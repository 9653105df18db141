"""``python -m seqclf`` and ``torchrun -m seqclf``: the same as the program ``seqclf``."""

import sys

from seqclf.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
