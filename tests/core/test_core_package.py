"""The package as it is imported, and the script that mutates it."""

import ast
import copy
import doctest
import importlib.util
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _core import STATE

import zenith
from zenith import ZenithState, core

ROOT = Path(__file__).resolve().parents[2]

spec = importlib.util.spec_from_file_location("mutants", ROOT / "tests" / "mutants.py")
assert spec
mutants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutants)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_zenith_imports_no_framework() -> None:
    process = python("import sys, zenith; zenith.init(); print(*sys.modules)")
    assert process.returncode == 0, process.stderr
    loaded = {name.partition(".")[0] for name in process.stdout.split()}
    assert "zenith" in loaded
    assert not loaded & {"torch", "tensorflow", "keras", "jax", "optax", "flax", "numpy"}


def test_the_core_imports_the_standard_library_alone() -> None:
    imported = set()
    for node in ast.walk(ast.parse(inspect.getsource(core))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add("." if node.level else str(node.module).partition(".")[0])
    assert imported <= set(sys.stdlib_module_names)
    assert "math" in imported  # the walk has found something


MISSING = {
    "torch": "zenith.torch needs PyTorch, which is not installed: "
    'pip install "zenith-optim[torch]"',
    "keras": "zenith.tf needs Keras 3 and a backend of it (TensorFlow, JAX or PyTorch), which is "
    'not installed: pip install "zenith-optim[tf]" (import of keras halted; None in sys.modules)',
    "optax": "zenith.optax needs JAX and optax, which are not installed: "
    'pip install "zenith-optim[optax]" (import of optax halted; None in sys.modules)',
}


@pytest.mark.parametrize("code", ["import zenith.{0}", "from zenith import {0}", "zenith.{0}"])
@pytest.mark.parametrize("framework", MISSING)
def test_a_missing_framework_names_the_extra_to_install(framework: str, code: str) -> None:
    name = framework.replace("keras", "tf")
    hidden = f"import sys; sys.modules[{framework!r}] = None; import zenith; dir(zenith); "
    process = python(hidden + code.format(name))
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == f"ImportError: {MISSING[framework]}"


def test_a_module_is_imported_where_it_is_first_used() -> None:
    process = python(
        "import sys, zenith; print('zenith.logs' in sys.modules, zenith.logs is "
        "sys.modules['zenith.logs']); from zenith import readers; print(zenith.replay.Series is "
        "readers.Series); import zenith.checkpoints; print(zenith.checkpoints.__name__)"
    )
    assert process.stdout.split() == ["False", "True", "True", "zenith.checkpoints"], process.stderr


def test_only_what_is_installed_is_listed_and_nothing_is_imported_for_it() -> None:
    # So that help(zenith), which reads every name that is listed, works on a plain install.
    process = python(
        "import sys; sys.modules |= dict.fromkeys(['torch', 'keras', 'optax', 'matplotlib']); "
        "import zenith; print(*sorted(name for name in dir(zenith) if name.islower())); "
        "import pydoc; pydoc.render_doc(zenith); "
        "from zenith import *; print([name for name in sys.modules if name[:8] == 'zenith.t'])"
    )
    listed, imported = process.stdout.splitlines()
    names = [name for name in listed.split() if not name.startswith("_")]
    assert names == sorted([*FUNCTIONS, "checkpoints", "core", "logs", "readers", "replay"])
    assert imported == "[]"


def test_a_framework_that_is_installed_is_listed(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("torch", "keras", "optax", "matplotlib"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] in MISSING]:
        monkeypatch.delitem(sys.modules, name)
    assert {"torch", "tf", "optax", "plot"} <= set(dir(zenith))


def test_another_name_is_an_attribute_error() -> None:
    missing: Any = zenith
    with pytest.raises(AttributeError) as caught:
        missing.tensorflow  # noqa: B018
    assert str(caught.value) == "module 'zenith' has no attribute 'tensorflow'"
    with pytest.raises(ImportError, match="cannot import name 'tensorflow' from 'zenith'"):
        exec("from zenith import tensorflow")


def test_a_state_is_pickled_and_copied_as_it_is() -> None:
    assert pickle.loads(pickle.dumps(STATE)) == copy.deepcopy(STATE) == STATE
    assert copy.deepcopy(STATE).norms is not STATE.norms


FUNCTIONS = ["from_dict", "init", "metrics", "to_dict", "update"]


def test_every_file_has_tests_that_its_mutants_are_held_against() -> None:
    for file in (ROOT / "zenith").rglob("*.py"):
        assert mutants.tests_of(file), file


def test_mutants_by_hand() -> None:
    found = dict(
        mutants.mutants('def f(x: 1):\n    """é."""\n    return max(x, a=0) if x else -x\n')
    )
    assert [change.partition("  ->  ")[2] for change in found] == [
        *("return None", "(not x)", "(max(x))", "(min)", "(1)", "(x)")
    ]
    assert all(ast.parse(source) for source in found.values())


def test_public_names() -> None:
    assert zenith.__all__ == ["ZenithState", "ZenithWarning", *FUNCTIONS]
    assert zenith.__all__ == core.__all__
    for name in zenith.__all__:
        assert getattr(zenith, name) is getattr(core, name)
    assert issubclass(zenith.ZenithWarning, UserWarning)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_shows_an_example(name: str) -> None:
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(zenith, name), name)
    assert found.examples


def test_the_state_says_what_each_field_holds() -> None:
    text = inspect.getdoc(ZenithState) or ""
    for field in ("norms", "count", "mean", "zenith", "scale", "skipped"):
        assert f"\n    {field} (" in text
