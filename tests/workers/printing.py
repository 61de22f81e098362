"""Runs a program and writes what it prints into a file: ``printing.py program file``."""

import contextlib
import runpy
import sys

with open(sys.argv[2], "w", encoding="utf-8") as said, contextlib.redirect_stdout(said):
    runpy.run_path(sys.argv[1], run_name="__main__")
