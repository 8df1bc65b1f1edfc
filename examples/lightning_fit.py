"""Train on the handwritten digits with Lightning: Zenith in `configure_optimizers`.

    pip install "zenith-optim[torch]" lightning scikit-learn
    python examples/lightning_fit.py

The rates and norms of every step are in metrics.csv in the folder of the logger. Do not set the
Trainer's `gradient_clip_val`, which clips before Zenith measures: `Zenith(max_grad_norm=...)`.
"""

import argparse

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zenith.torch import Zenith
from zenith.torch.lightning import ZenithCallback

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
parser.add_argument("--out", default="lightning_logs")
options = parser.parse_args()


class Digits(lightning.LightningModule):
    """A network of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def training_step(self, batch, _):
        """Return the loss of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch, _):
        """Log the accuracy of a batch."""
        images, labels = batch
        self.log("accuracy", (self.network(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        """Return Zenith, and no scheduler."""
        return Zenith(self.parameters(), lr=0.1, window=options.window)


lightning.seed_everything(0)
pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
trainer = lightning.Trainer(
    max_epochs=options.epochs,
    accelerator="cpu",
    logger=CSVLogger(options.out),
    callbacks=[ZenithCallback()],
    enable_checkpointing=False,
    log_every_n_steps=20,
)
model = Digits()
train = DataLoader(TensorDataset(images[:1347], labels[:1347]), batch_size=32, shuffle=True)
test = DataLoader(TensorDataset(images[1347:], labels[1347:]), batch_size=450)
trainer.fit(model, train, test)
(rate,) = trainer.optimizers[0].get_last_lr()
accuracy = float(trainer.callback_metrics["accuracy"])
print(f"rate {rate:.4f}, test accuracy {100 * accuracy:.2f} %, logs in {trainer.logger.log_dir}")
