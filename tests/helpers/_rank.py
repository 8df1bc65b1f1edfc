"""Runs a program for torchrun, and ends the process with it: `_rank.py PROGRAM ARGUMENTS`.

What DTensor and Accelerate keep holds a process group beyond `destroy_process_group()` (torch
2.14), and so gloo's threads. A backward pass leaves Python objects with the collectives after it,
and a thread that lets go of its last one while Python ends aborts the process, after all its
output.
"""

import os
import runpy
import sys

del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
