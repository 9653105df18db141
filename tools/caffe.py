"""Runs ``seqclf caffe``."""

from seqclf.cli.caffe import main
from seqclf.cli.tool import run_tool

if __name__ == "__main__":
    run_tool(main)
