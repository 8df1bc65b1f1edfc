"""Every block of Python in the documentation runs, and so does every change in the README."""

import csv
import importlib
import json
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
import tomllib
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)]*)\)")
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
DIFF = re.compile(r"```diff\n(.*?)```", re.DOTALL)
sys.path.append(str(ROOT))  # behind the wheel, for the experiments, which no wheel has
COSTS = sorted((ROOT / "docs" / "overhead").glob("*.json"))


def blocks(page):
    return [textwrap.dedent(code) for _, code in BLOCK.findall(page.read_text())]


def run(page, names):
    names["__name__"] = "__main__"
    for number, code in enumerate(blocks(page), start=1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)
    return names


WITH_CODE = [page for page in PAGES if blocks(page) and page.name != "distributed.md"]


def test_there_is_something_to_run():
    assert len(WITH_CODE) >= 10


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page, {})


def sides(diff):
    """The two programs that a diff stands for: before, and after."""
    lines = diff.splitlines()
    return ["\n".join(line[2:] for line in lines if line[0] in " " + sign) for sign in "-+"]


def test_the_readme_has_a_change_for_each_framework():
    text = "".join(DIFF.findall(PAGES[0].read_text()))
    names = re.findall(r"^\+ from (zenith\.\w+) import", text, re.MULTILINE)
    assert {*names} == {"zenith.torch", "zenith.tf", "zenith.optax"}


@pytest.mark.parametrize("diff", DIFF.findall(PAGES[0].read_text()), ids=lambda diff: diff[4:25])
def test_both_sides_of_a_change_in_the_readme_run(diff):
    import keras
    import optax
    import torch

    def model():
        if "torch.optim" in diff:
            return torch.nn.Linear(1, 1)
        return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

    for program in sides(diff):
        names = {"torch": torch, "keras": keras, "optax": optax, "model": model(), "steps": 9}
        exec(program, names)


def test_the_frameworks_are_attributes_of_zenith():
    code = "import zenith; print(zenith.torch.Zenith, zenith.tf.Zenith, zenith.optax.zenith)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert re.findall(r"zenith\.\w+", process.stdout) == ["zenith.torch", "zenith.tf"]


def test_every_path_that_the_readme_links_is_there():
    paths = [path for _, path in LINK.findall(PAGES[0].read_text()) if "://" not in path]
    assert len(paths) >= 5
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_package_index_is_shown_no_path_of_this_repository():
    """By the rules that the build applies; `python -m build` and `twine check --strict` by hand."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hook = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    assert hook["fragments"] == [{"path": "README.md"}]
    text = PAGES[0].read_text()
    for rule in hook["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert LINK.findall(text) == [("", "https://arxiv.org/abs/2601.15212")]
    assert "Whole programs, each in one file, are in examples.\n" in text  # a link's text stays
    assert "$$" not in text  # the index draws no equations
    assert DIFF.findall(text) == DIFF.findall(PAGES[0].read_text())


def test_the_readme_is_short():
    assert len(PAGES[0].read_text().splitlines()) <= 150


def test_no_table_is_typed():
    """What stands in the pages is what the measurements, the pins and the floors come to now."""
    tables = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))
    found = "".join(page.read_text() for page in tables["PAGES"])
    assert {name for _, name, _ in tables["BLOCK"].findall(found)} == {*tables["TABLES"]}
    for page in tables["PAGES"]:
        assert tables["filled"](page.read_text()) == page.read_text()


def test_the_hours_at_paper_scale_are_those_of_the_papers_table_2():
    from experiments.tasks import PAPER

    assert [budget.hours for budget in PAPER.values()] == [1, 1, 1, 5, 5, 10]


def test_the_commands_on_the_page_about_experiments_are_taken():
    from experiments.__main__ import arguments

    page = (ROOT / "docs" / "experiments.md").read_text().replace("\\\n", "")
    lines = re.findall(r"^ *\S*python -m experiments (.+)$", page, re.MULTILINE)
    commands = [shlex.split(line.replace("$seed", "0"), comments=True) for line in lines]
    assert [arguments(command).command for command in commands] == [
        *("study", "study", "study", "report", "run", "report", "run", "study", "study")
    ]


@pytest.mark.parametrize("figures", COSTS, ids=lambda path: path.stem)
def test_a_table_of_cost_is_what_its_figures_come_to(figures):
    measurement = importlib.import_module(f"experiments.cost.{figures.stem}")
    table = measurement.table(json.loads(figures.read_text()))
    assert figures.with_suffix(".md").read_text() == table + "\n"


@pytest.mark.parametrize("task", ["digits", "fashion-mnist"])
def test_a_summary_is_what_its_records_come_to(task):
    from experiments.records import paths, read
    from experiments.report.summary import grouped, summarise

    folder = ROOT / "docs" / task
    runs = grouped({path: read(path) for path in paths(folder)})
    assert json.loads((folder / "summary.json").read_text()) == summarise(runs)


def test_every_example_is_listed():
    page = (ROOT / "docs" / "getting-started" / "installation.md").read_text()
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert {*re.findall(r"^\| `(\w+\.py)` \|", page, re.MULTILINE)} == examples


def test_every_test_that_a_page_names_is_there():
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+\.py)`", page.read_text())}
    assert len(named) >= 9
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


def test_the_accuracies_on_the_page_about_keras_are_those_of_its_picture():
    page = (ROOT / "docs" / "getting-started" / "keras.md").read_text()
    for name in ("SGD", "ZENITH"):
        with (ROOT / "docs" / "keras-digits" / f"{name}.csv").open() as file:
            last = [float(row["val_accuracy"]) for row in csv.DictReader(file)][-1]
        assert (
            f"{name} ends at {100 * last:.1f} %" in page or f"{name} at {100 * last:.1f} %" in page
        )


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    assert f'url: "{project["urls"]["Paper"]}"' in citation


def test_what_a_page_says_is_printed(capsys):
    page = ROOT / "docs" / "how-it-works.md"
    run(page, {})
    assert f"```text\n{capsys.readouterr().out}```" in page.read_text()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own
def test_the_blocks_of_the_page_on_devices_run_on_one(monkeypatch, tmp_path):
    """Its engines are tested elsewhere, in real processes; here each block meets one device."""
    import jax
    import jax.numpy as jnp
    import optax
    import tensorflow as tf
    import torch
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from zenith.optax import zenith as sgd_under_zenith
    from zenith.torch import Zenith

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    stage = torch.nn.Linear(2, 2)
    stage(torch.ones(1, 2)).sum().backward()
    wrapped = types.SimpleNamespace(_global_grad_norm=3.0)
    engine = types.SimpleNamespace(initialize=lambda **_: (None, wrapped, None, None))
    monkeypatch.setitem(sys.modules, "deepspeed", engine)
    mesh = Mesh(jax.devices()[:1], ("devices",))
    params = {"w": jax.device_put(jnp.ones(4), NamedSharding(mesh, PartitionSpec("devices")))}
    names = {
        **{"torch": torch, "stage": stage, "model": stage, "pipeline_group": None},
        **{"optimizer": Zenith(stage.parameters()), "Zenith": Zenith, "config": {}},
        **{"deepspeed": engine, "tf": tf, "strategy": tf.distribute.get_strategy()},
        **{"replica": lambda x, y: None, "jax": jax, "jnp": jnp, "optax": optax, "mesh": mesh},
        **{"NamedSharding": NamedSharding, "PartitionSpec": PartitionSpec, "params": params},
        "sgd_under_zenith": sgd_under_zenith,
    }
    try:
        torch_part, jax_part = (ROOT / "docs" / "distributed.md").read_text().split("\n## JAX")
        for part in (torch_part, jax_part):
            for code in BLOCK.findall(part):
                exec(textwrap.dedent(code[1]), names)
            if part is torch_part:
                zenith = names["optimizer"]
                zenith.step()  # now by DeepSpeed's norm
                assert zenith.zenith_state.norms[1 if zenith.zenith_state.count > 1 else 0] == 3
                names["optimizer"] = sgd_under_zenith(0.1, window=1)
    finally:
        torch.distributed.destroy_process_group()
    spec = PartitionSpec("devices")
    whole = jax.shard_map(
        names["shard_step"], mesh=mesh, in_specs=(spec, PartitionSpec(), spec), out_specs=spec
    )
    stepped = whole(params, names["opt_state"], {"w": jnp.full(4, 2.0)})
    assert stepped["w"].tolist() == pytest.approx([0.8] * 4)
