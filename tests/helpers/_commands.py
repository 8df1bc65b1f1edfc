"""The command lines here as processes, and what each of them promises of a mistake."""

import importlib
import os
import subprocess
import sys
from pathlib import Path


def environment(program="zenith", **variables):
    """That of a child, which finds the program where we do, and where a warning is an error."""
    source = str(Path(importlib.import_module(program).__file__).parents[1])
    before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    path = os.pathsep.join([source, *before])
    return inherited | {"PYTHONPATH": path, "PYTHONWARNINGS": "error"} | variables


def run(*arguments, cwd, program="zenith", **variables):
    """Run `python -m PROGRAM` over a pipe."""
    return subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=cwd,
        env=environment(program, **variables),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def blocker(folder, *packages):
    """Return a folder which, on the path, makes packages look as if they were not installed."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {packages!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )
    return str(folder)


def assert_one_line(stderr, complaint, program="zenith"):
    assert stderr.startswith(f"{program}: error: ")
    assert stderr.count("\n") == 1
    assert stderr.endswith("\n")
    assert complaint in stderr
