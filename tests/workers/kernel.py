"""A kernel of Jupyter, as a manager would start it: its folder, then what it is told."""

import os
import sys

from ipykernel import kernelapp

os.setpgid(0, 0)
os.chdir(sys.argv.pop(1))
kernelapp.launch_new_instance()
