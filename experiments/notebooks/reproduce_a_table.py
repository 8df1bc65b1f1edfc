# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reproduce a table
#
# Some cells of the paper's Table 3: ZENITH, SGD at a constant rate and SGD under a cosine, on one
# task. The runs are those of `python -m experiments study table3`, kept in the same folder: what is
# finished is not run again, by this notebook or by that command.
#
# For a cell of the paper itself, with its data set and a GPU, set `SCALE = "paper"`,
# `TASK = "cifar10-vgg19"`, `DEVICE = "cuda"`, and `DATA` to the folder with `cifar-10-batches-py`.

# %%
from pathlib import Path

from IPython.display import Image, Markdown

from experiments.pool import Place, run_all
from experiments.report import tables
from experiments.report.figures import picture
from experiments.report.found import gathered
from experiments.report.sections import sections
from experiments.studies import cells

# %% tags=["parameters"]
SCALE = "desk"  # or "toy", or "paper"
TASK = "desk-a"
OPTIMIZERS = ["zenith", "sgd", "sgd-cosine"]
SEEDS = 2
OUT = "zenith-studies"
DATA: str | None = None  # the folder of the task's files, where they are not found by themselves
DEVICE = "cpu"

# %% [markdown]
# ## The runs
#
# One process of one thread makes them, one after the other.

# %%
asked = [
    cell
    for cell in cells("table3", SCALE, SEEDS)
    if cell.task == TASK and cell.question.optimizer in OPTIMIZERS and not cell.question.options
]
print(*(cell.question.path(TASK) for cell in asked), sep="\n")
failures = run_all(asked, Place(Path(OUT), Path(DATA) if DATA else None, DEVICE), jobs=1)
assert not failures, failures

# %% [markdown]
# ## The table
#
# It is made from the records alone. Beside it stands what the paper prints, where the task is one
# of the paper's; else, as here, all columns of the paper, which are of other data and networks.

# %%
names = list(dict.fromkeys(cell.question.name for cell in asked))
(section,) = sections(gathered(Path(OUT), {TASK: names}), SEEDS)
Markdown(tables.table3(section))

# %% [markdown]
# ## What the differences are worth
#
# For a seed, all optimizers had the same initial weights and the same batches. So the differences
# are taken seed by seed.

# %%
Markdown(tables.lead(section))

# %% [markdown]
# ## Loss and accuracy over the time of training

# %%
Image(picture("figure1", section))
