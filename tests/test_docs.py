"""Every block of Python in the documentation and in the README runs, page by page."""

import re
import subprocess
import sys
import textwrap
import tomllib
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)]*)\)")
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


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
    assert "is in docs/overhead." in text  # a link's text stays
    assert "$$" not in text  # the index draws no equations
    assert blocks(PAGES[0]) == [textwrap.dedent(code) for _, code in BLOCK.findall(text)]


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
