"""Packages of the wheel. Everything else is in setup.cfg."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["seqclf", "seqclf.*"]), "seqclf.configs"],
    package_dir={"seqclf.configs": "configs"},  # the reference configs, for `seqclf train --config mnist_lastframe`
)
