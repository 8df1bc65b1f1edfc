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

from experiments.report import tables
from experiments.report.figures import picture
from experiments.report.found import gathered
from experiments.report.sections import sections
from experiments.run import Run
from experiments.studies import cells
from experiments.tasks import load
from experiments.train import train

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
# Those of a seed are made in step with one another, so that whatever else the machine does falls on
# all of them alike, and their times may be compared.

# %%
asked = [
    cell.question
    for cell in cells("table3", SCALE, SEEDS)
    if cell.task == TASK and cell.question.optimizer in OPTIMIZERS and not cell.question.options
]
task = load(TASK, Path(DATA) if DATA else None, asked[0].epochs, asked[0].batch)
for seed in range(SEEDS):
    runs = [Run(task, question, DEVICE) for question in asked if question.seed == seed]
    for _ in train(task, runs, Path(OUT), resume=True):
        pass  # each record, as it is written
print(*(question.path(TASK) for question in asked), sep="\n")

# %% [markdown]
# ## The table
#
# It is made from the records alone. Beside it stands what the paper prints, where the task is one
# of the paper's; else, as here, all columns of the paper, which are of other data and networks.

# %%
names = list(dict.fromkeys(question.name for question in asked))
(section,) = sections(gathered(Path(OUT), {TASK: dict.fromkeys(names, SEEDS)}), SEEDS)
Markdown(tables.table3(section))

# %% [markdown]
# ## What the differences are worth
#
# For a seed, all optimizers had the same initial weights and the same batches. So the differences
# are taken seed by seed.

# %%
Markdown(tables.lead(section))

# %% [markdown]
# In the runs shown here the three means are closer to one another than the two seeds of ZENITH are,
# or those of SGD. Two seeds cannot say more; the note above says from how many on a test is made.
#
# ## Loss and accuracy over the time of training

# %%
Image(picture("figure1", section))

# %% [markdown]
# Here SGD at a constant rate ends at the lowest training loss, and under the cosine at the highest.
# In test accuracy there is no such difference.
