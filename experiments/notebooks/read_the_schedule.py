# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Read the schedule's behaviour
#
# One run of ZENITH with every step on record, and beside it, from the same weights and on the same
# batches, SGD at a constant rate. What did the schedule see, and what did it do? Would a replay of
# SGD's log have told?

# %%
# %matplotlib inline
from itertools import pairwise
from pathlib import Path

from experiments.optimizers import recipe
from experiments.question import Question
from experiments.records import read
from experiments.run import Run
from experiments.tasks import load
from experiments.train import train
from zenith.plot import plot
from zenith.readers import series
from zenith.replay import replay

# %% tags=["parameters"]
TASK = "desk-a"
EPOCHS: int | None = None  # as many as the task has
WINDOW = 500
OUT = "zenith-schedule"
DATA: str | None = None  # the folder of the task's files, where they are not found by themselves

# %% [markdown]
# ## The runs
#
# A step of one is followed by the same step of the other. What is finished is not run again.

# %%
task = load(TASK, Path(DATA) if DATA else None, EPOCHS)
window = recipe("zenith", {}).chosen({"window": WINDOW})
questions = {
    "zenith": Question("zenith", options=window, log_every=1, epochs=EPOCHS),
    "sgd": Question("sgd", log_every=1, epochs=EPOCHS),
}
runs = [Run(task, question) for question in questions.values()]
for _ in train(task, runs, Path(OUT), resume=True):
    pass  # each record, as it is written
files = {name: Path(OUT) / question.path(TASK) for name, question in questions.items()}
steps = read(files["zenith"]).steps

for name, file in files.items():
    last = read(file).evals[-1]
    print(f"{name:7} loss {last['train_loss']:.3g}, test accuracy {last['test_accuracy']:.2f} %")

# %% [markdown]
# ## What ZENITH saw, and what it did
#
# Grey is the norm of each gradient, blue its mean over the window, dotted the highest mean so far:
# the zenith. The rate is `lr * mean / zenith`, and `lr` until the window is full.

# %%
plot(steps)

# %%
full = [line for line in steps if line["zenith"]]
top = next(line for line in full if line["zenith"] == full[-1]["zenith"])
lowest = min(full, key=lambda line: line["lr"])
falls = sum(after["lr"] < before["lr"] for before, after in pairwise(full))
print(f"the window is full at step {full[0]['step']} of {len(steps)}")
print(f"the last zenith, {top['zenith']:.4g}, is reached at step {top['step']}")
print(f"the rate falls in {falls} of {len(full) - 1} steps from then on")
print(f"the lowest rate, {lowest['lr']:.4g}, is that of step {lowest['step']}")
print(f"the last scale is {steps[-1]['scale']:.6g}")

# %% [markdown]
# In the run shown here the first mean stayed the highest. So the rate began to fall as soon as the
# window was full, fell in most steps but not in all, and was lowest near the end.
#
# ## The same from the norms alone
#
# The schedule knows nothing but the norms. A replay reads them from the log and comes to the same
# scales, as far as the six digits go that a record keeps. On the command line: `zenith replay`.

# %%
replayed = {name: replay(series(file), WINDOW).rows for name, file in files.items()}
pairs = zip(replayed["zenith"], steps, strict=True)
largest = max(abs(row["scale"] / line["scale"] - 1) for row, line in pairs)
print(f"the largest difference is {largest:.1g} of the scale")

# %% [markdown]
# ## What a replay cannot know
#
# Replayed over the norms of SGD, ZENITH would have had these scales. It had others, since its rates
# lead to other weights, and those to other norms.

# %%
print("part of the run   over SGD's norms   in its own run")
for part in (1, 2, 3, 4):
    at = len(steps) * part // 4 - 1
    print(f"{part / 4:15.0%}{replayed['sgd'][at]['scale']:19.4f}{steps[at]['scale']:17.4f}")

# %% [markdown]
# In the runs shown here the two agree at first. Then SGD came to a lower loss (above) and to lower
# norms, and so the replay ends lower than ZENITH did. The zenith is the same for both: until the
# window was full they were one and the same run.

# %%
tops = {name: rows[-1]["zenith"] for name, rows in replayed.items()}
print({name: f"{top:.6g}" for name, top in tops.items()})
