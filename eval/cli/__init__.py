"""The command line."""

from fewstep.eval.cli.app import main

__all__ = ["main"]
