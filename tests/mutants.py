"""Which changes to the code would no test notice?

    python tests/mutants.py zenith/core.py zenith/plot.py
    python tests/mutants.py --sample 40 zenith/torch/*.py  # of each file at most 40, the same ever

Changes one expression or statement of a file at a time, in a copy of all, runs the file's own tests
and doctests there, and prints the changes that they let live. Some are equivalent: nothing that
could be seen is another. Some only a wider set of tests notices: those that `--slowest` leaves out,
of several processes, or of another backend of Keras (KERAS_BACKEND). The others ask for a test, or
for less code.
"""

import argparse
import ast
import copy
import gc
import importlib
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

TESTS_DIR = Path(__file__).resolve().parent
ROOT = TESTS_DIR.parent
TESTS = {  # by how the file's name begins, the first that fits: the quick ones that are about it
    "__init__": "core/test_*.py",
    "core": "core/test_*.py",
    "_sinks": "test_trainers_sinks.py",
    "_watch": "test_trainers_off.py test_trainers_logging.py",
    "logs": "test_optax_logging.py test_trainers_logging.py test_trainers_[os]*.py",
    "plot": "test_replay.py",
    "readers": "test_readers.py",
    "replay": "test_replay.py",
    "__main__": "test_cli.py",
    "cli": "test_cli.py test_replay.py test_parity_checkpoints.py",
    "checkpoints": "test_parity_checkpoints.py",
    "optax": "test_optax_golden.py test_optax_steps*.py test_optax_saving.py test_optax_leaves.py",
    "tf/_logger": "test_tf_keras_logging.py",
    "tf": "test_tf_keras_golden.py test_tf_keras_[fmnsw]*.py",
    "torch/lightning": "test_trainers_lightning.py",
    "torch/transformers": "test_trainers_transformers.py",
    "torch/_norm": "test_torch_norm.py test_torch_schedule*.py test_torch_nonfinite.py",
    "torch/_hooks": "test_torch_hooks.py test_torch_scheduler*.py",
    "torch/_rates": "test_torch_scheduler*.py",
    "torch/_scheduler": "test_torch_scheduler*.py",
    "torch": "test_torch_[gnswz]*.py test_torch_checkpoint.py test_torch_device*.py",
}
FORKED = "not test_weights_and_biases_offline"  # wandb writes no history in a forked process
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
            for word in [word for word in words if word.arg != "strict"]:
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
    """Every node that does something, and its field: no docstring, `__all__` or `strict=`."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            listed = isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "__all__"
            strict = isinstance(child, ast.keyword) and child.arg == "strict"
            silent = docstring or listed or strict or isinstance(child, ast.JoinedStr)
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
    found = [test for pattern in patterns for test in sorted(TESTS_DIR.rglob(pattern))]
    return [test.relative_to(TESTS_DIR).as_posix() for test in found]


def copy_tree(root: Path, folder: str) -> None:
    """Copy the package and its tests; what lies beside them is linked."""
    for entry in [entry for entry in root.iterdir() if entry.name[0] != "."]:
        if entry.name in ("zenith", "tests"):
            shutil.copytree(entry, Path(folder, entry.name))
        else:
            Path(folder, entry.name).symlink_to(entry)


def preload(file: Path, done: set[Path]) -> None:
    """Import once, and not for each change, what is not ours of all that a test file imports.

    What the package imports within a function is left to the tests that call it.
    """
    done.add(file)
    tree = ast.parse(file.read_text())
    lazy = [] if "tests" in file.parts else [ast.FunctionDef, ast.ClassDef]
    eager = [node for node in tree.body if type(node) not in lazy]
    for name in [name for part in eager for node in ast.walk(part) for name in imported(node)]:
        paths = [
            folder / name.replace(".", "/") for folder in (ROOT, file.parent, TESTS_DIR / "helpers")
        ]
        own = [f for path in paths for f in (path.with_suffix(".py"), path / "__init__.py")]
        if found := [path for path in own if path.exists()]:
            for path in {*found} - done:
                preload(path, done)
        elif not name.startswith("zenith"):
            importlib.import_module(name)


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [name.name for name in names]
        case ast.ImportFrom(module=str(module), level=0, names=names):
            ours = module.split(".")[0] == "zenith"
            return [module, *(f"{module}.{name.name}" for name in names if ours)]
    return []


class Order:
    """Runs first what has noticed most, of these the quick; tests that share a fixture last.

    What takes longer than `slowest` is left out, and with it what shares a fixture.
    """

    path: Path
    limit = 600.0  # seconds for all of them

    def __init__(self, slowest: float) -> None:
        self.slowest = slowest
        self.noticed: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        def rank(item: Any) -> tuple[float, float]:
            fixtures = item._fixtureinfo.name2fixturedefs.values()
            if any(fixture.scope == "module" for found in fixtures for fixture in found):
                return math.inf, 0
            return -self.noticed[item.nodeid], self.seconds[item.nodeid]

        items[:] = [item for item in sorted(items, key=rank) if max(rank(item)) <= self.slowest]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        with self.path.open("a") as file:
            file.write(f"{int(report.failed)} {report.duration} {report.nodeid}\n")

    def learn(self) -> None:
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            failed, seconds, name = line.split(" ", 2)
            self.noticed[name] += int(failed)
            self.seconds[name] = max(self.seconds[name], float(seconds))


def run(folder: str, file: Path, order: Order) -> NoReturn:
    """The tests of a file, in a process of their own; ends with the exit code of pytest."""
    os.chdir(Path(folder, "tests"))
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = folder
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    options = ["-xqc", "../pyproject.toml", "--assert=plain", "--doctest-modules", "-k", FORKED]
    sources = [str(folder / file.relative_to(ROOT))] * (file.name != "__main__.py")
    os._exit(pytest.main([*options, *sources, *tests_of(file)], plugins=[order]))


def passes(root: Path, file: Path, source: str, order: Order) -> bool:
    """Whether the tests of a file pass, in good time, with this source in its place."""
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(root, folder)
        (folder / file.relative_to(ROOT)).write_text(source)
        order.path = Path(folder, "order.txt")
        tests = multiprocessing.get_context("fork").Process(target=run, args=(folder, file, order))
        tests.start()
        tests.join(order.limit)
        tests.kill()
        order.learn()
        return tests.exitcode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--sample", type=int, metavar="N", help="try at most N changes a file")
    parser.add_argument(
        "--slowest",
        type=float,
        metavar="SECONDS",
        default=math.inf,
        help="leave out tests that take longer",
    )
    options = parser.parse_args()
    os.environ |= {"KERAS_BACKEND": "torch", "PYTHONDONTWRITEBYTECODE": "1"} | os.environ
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True
    orders: dict[str, Order] = {}
    with tempfile.TemporaryDirectory() as folder:  # so that work may go on meanwhile
        copy_tree(ROOT, folder)
        for file in options.files:
            tests = " ".join(tests_of(file.resolve()))
            if tests not in orders:
                orders[tests] = first(Path(folder), file.resolve(), options.slowest)
            report(Path(folder), file.resolve(), options.sample, orders[tests])


def first(root: Path, file: Path, slowest: float) -> Order:
    """Run the tests of a file as it is, and learn how long each takes."""
    for test in tests_of(file):
        preload(TESTS_DIR / test, set())
    gc.freeze()  # what is there need not be looked through again
    order, start = Order(slowest), time.monotonic()
    if not passes(root, file, (root / file.relative_to(ROOT)).read_text(), order):
        failed = ", ".join(+order.noticed) or "they take too long, or end the process"
        sys.exit(f"the tests of {file} do not pass as it is: {failed}")
    order.limit = 30 + 5 * (time.monotonic() - start)  # for a change that makes a loop endless
    return order


def report(root: Path, file: Path, sample: int | None, order: Order) -> None:
    every = list(mutants((root / file.relative_to(ROOT)).read_text()))
    tried = random.Random(0).sample(every, min(sample or len(every), len(every)))
    left = 0
    for what, source in tried:
        if passes(root, file, source, order):
            left += 1
            print(f"{file.name}:{what}", flush=True)
    of = f"{len(tried)} sampled (of {len(every)}) changes" if sample else f"{len(tried)} changes"
    print(f"{file.name}: {left} of {of} live", flush=True)


if __name__ == "__main__":
    main()
