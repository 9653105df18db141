"""The same as ``seqclf train``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not tools/, whose files would hide packages of their names
    from seqclf.cli.main import main

    sys.exit(main(["train", *sys.argv[1:]]))
