"""A loop with Accelerate, for torchrun: `torchrun ... _trainers_accelerate.py FOLDER`.

Every rank writes what it has seen to FOLDER/rank.json. With --resume the first half is not trained
but loaded, from what an earlier run has saved.
"""

import argparse
import json
from pathlib import Path

from _trainers import CUT, WINDOW, Network, loader
from accelerate import Accelerator, DataLoaderConfiguration

from zenith.torch import Zenith

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

accelerator = Accelerator(
    cpu=True,
    gradient_accumulation_steps=options.accumulate,
    dataloader_config=DataLoaderConfiguration(split_batches=True),
)
model = Network()
optimizer = Zenith(model.parameters(), lr=0.1, window=WINDOW, momentum=0.9)
model, prepared, data = accelerator.prepare(model, optimizer, loader())
rates = []
if options.resume:
    accelerator.load_state(str(options.folder / "half"))
    data = accelerator.skip_first_batches(data, CUT * options.accumulate)
for batch in data:
    with accelerator.accumulate(model):
        prepared.zero_grad()
        accelerator.backward(model(**batch)["loss"])
        prepared.step()
        if accelerator.sync_gradients:
            rates.append(optimizer.get_last_lr()[0])
    if not options.resume and accelerator.sync_gradients and len(rates) == CUT:
        accelerator.save_state(str(options.folder / "half"))
weights = [p.tolist() for p in accelerator.unwrap_model(model).parameters()]
document = {"rates": rates, "weights": weights, "ranks": accelerator.num_processes}
name = f"rank{accelerator.process_index}.json"
(options.folder / name).write_text(json.dumps(document))
accelerator.end_training()
