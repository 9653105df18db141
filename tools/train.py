"""Runs ``seqclf train``."""

from seqclf.cli.tool import run_tool
from seqclf.cli.train import main

if __name__ == "__main__":
    run_tool(main)
