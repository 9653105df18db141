"""Runs ``seqclf benchmark``."""

from seqclf.cli.benchmark import main
from seqclf.cli.tool import run_tool

if __name__ == "__main__":
    run_tool(main)
