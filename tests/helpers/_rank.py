"""Runs a program for torchrun, and ends the process with it: `_rank.py PROGRAM ARGUMENTS`.

DTensor's caches (torch 2.14) and Accelerate keep a process group beyond `destroy_process_group()`,
and so gloo's threads. Collectives hold Python objects since a backward pass, and a thread that lets
go of its last one while Python ends aborts the process, after all its output.
"""

import os
import runpy
import sys
from pathlib import Path

del sys.argv[0]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
