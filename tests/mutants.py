"""Which changes to the code would no test notice?

    python tests/mutants.py zenith/core.py zenith/plot.py --jobs 2

Changes one expression or statement of a file at a time, in a copy of all, runs the file's own tests
and doctests there, and prints the changes that they let live. Some are equivalent: nothing that
could be seen is another. The others ask for a test, or for less code.
"""

import argparse
import ast
import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = {  # by how the file's name begins, the first that fits: the quick ones that are about it
    "__init__": "test_core.py",
    "core": "test_core.py",
    "_sinks": "test_trainers_logging.py",
    "_watch": "test_trainers_logging.py",
    "logs": "test_optax_logging.py test_trainers_logging.py",
    "plot": "test_demo_replay.py",
    "readers": "test_demo_replay.py",
    "replay": "test_demo_replay.py",
    "__main__": "test_cli.py",
    "cli": "test_cli.py test_demo_replay.py",
    "checkpoints": "test_cli.py test_optax_commands.py",
    "demo": "test_demo_*.py test_cli.py",
    "optax": "test_optax_golden.py test_optax_steps.py test_optax_saving.py test_optax_leaves.py",
    "tf/_logger": "test_tf_keras_logging.py",
    "tf": "test_tf_keras_golden.py test_tf_keras_[fmnsw]*.py",
    "torch/lightning": "test_trainers_lightning.py test_trainers_logging.py",
    "torch/transformers": "test_trainers_transformers.py test_trainers_logging.py",
    "torch/_norm": "test_torch_norm.py test_torch_schedule.py",
    "torch/_hooks": "test_torch_hooks.py test_torch_scheduler*.py",
    "torch/_rates": "test_torch_scheduler*.py",
    "torch/_scheduler": "test_torch_scheduler*.py",
    "torch": "test_torch_golden.py test_torch_[nsw]*.py test_torch_checkpoint.py",
}
SWAPS: dict[type, type[Any]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum"}
PASSIVE = {"annotation", "returns", "decorator_list", "bases"}  # fields that do nothing here


def changes(node: Any, field: str) -> Iterator[ast.AST]:
    """What may be put in the place of a node that is found in this field of its parent."""

    def but(**fields: Any) -> Any:
        changed = copy.copy(node)
        vars(changed).update(fields)
        return changed

    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield but(ops=[*ops[:i], SWAPS[type(op)](), *ops[i + 1 :]])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS:
            yield but(op=SWAPS[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str(value)):
            yield ast.Constant(f"{value}!")
        case ast.Call(keywords=words):
            for word in words:
                yield but(keywords=[other for other in words if other is not word])
        case ast.Return(value=ast.AST() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield ast.Pass()
        case ast.Name(id=name) if name in NAMES:
            yield ast.Name(NAMES[name])
    if field == "test" and isinstance(node, ast.Name | ast.Call | ast.Attribute):
        yield ast.UnaryOp(ast.Not(), node)


def places(node: ast.AST) -> Iterator[tuple[Any, str]]:
    """Every node that does something, and the field it is in: no docstring, no `__all__`."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            listed = isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "__all__"
            silent = docstring or listed or isinstance(child, ast.JoinedStr)
            if isinstance(child, ast.AST) and field not in PASSIVE and not silent:
                yield child, field
                yield from places(child)


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """What each change is, and the whole source after it."""
    raw = source.encode()
    lines = [b"", *raw.splitlines(keepends=True)]
    for node, field in places(ast.parse(source)):
        for changed in changes(node, field):
            start = sum(map(len, lines[: node.lineno])) + node.col_offset
            end = sum(map(len, lines[: node.end_lineno])) + node.end_col_offset
            old, new = raw[start:end].decode(), ast.unparse(changed)
            new = new if isinstance(node, ast.stmt) else f"({new})"
            whole = raw[:start] + new.encode() + raw[end:]
            yield f"{node.lineno}: {old}  ->  {new}", whole.decode()


def tests_of(file: Path) -> list[str]:
    name = file.relative_to(ROOT / "zenith").as_posix()
    patterns = next(found for start, found in TESTS.items() if name.startswith(start)).split()
    return [test.name for pattern in patterns for test in sorted((ROOT / "tests").glob(pattern))]


def copy_tree(root: Path, folder: str) -> None:
    """Copy the package and its tests; what lies beside them is linked."""
    for entry in [entry for entry in root.iterdir() if entry.name[0] != "."]:
        if entry.name in ("zenith", "tests"):
            shutil.copytree(entry, Path(folder, entry.name))
        else:
            Path(folder, entry.name).symlink_to(entry)


def passes(root: Path, file: Path, source: str) -> bool:
    """Whether the tests of a file pass, within ten minutes, with this source in its place."""
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(root, folder)
        copied = folder / file.relative_to(ROOT)
        copied.write_text(source)
        command = [sys.executable, "-m", "pytest", "-xqc", "../pyproject.toml", "--doctest-modules"]
        env = {"KERAS_BACKEND": "torch", **os.environ, "PYTHONPATH": folder}
        try:
            run = subprocess.run(
                [*command, str(copied), *tests_of(file)],
                cwd=Path(folder, "tests"),
                env=env,
                capture_output=True,
                timeout=600,
            )
        except subprocess.TimeoutExpired:
            return False
        return run.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="how many run at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # so that work may go on meanwhile
        copy_tree(ROOT, folder)
        for file in options.files:
            report(Path(folder), file.resolve(), options.jobs)


def report(root: Path, file: Path, jobs: int) -> None:
    if not passes(root, file, source := file.read_text()):
        sys.exit(f"the tests of {file} do not pass as it is: {' '.join(tests_of(file))}")
    whats, sources = zip(*mutants(source), strict=True)
    with ThreadPoolExecutor(jobs) as pool:
        lives = pool.map(passes, [root] * len(sources), [file] * len(sources), sources)
        left = [what for what, lived in zip(whats, lives, strict=True) if lived]
    for what in left:
        print(f"{file.name}:{what}")
    print(f"{file.name}: {len(left)} of {len(sources)} changes live", flush=True)


if __name__ == "__main__":
    main()
