"""Train a transformer on the handwritten digits with Hugging Face's Trainer and Zenith.

    pip install "zenith-optim[torch]" "transformers[torch]" scikit-learn
    python examples/transformers_trainer.py

Two settings matter: `max_grad_norm=0`, since by default the Trainer clips to 1 before Zenith
measures, and a constant schedule, since by default the rate falls linearly to 0.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from zenith.torch import Zenith
from zenith.torch.transformers import ZenithCallback

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
parser.add_argument("--out", default="transformers_trainer")
options = parser.parse_args()

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
pixels = (pixels / 16).reshape(-1, 1, 8, 8).astype(np.float32)
rows = [{"pixel_values": p, "labels": int(d)} for p, d in zip(pixels, digits, strict=True)]
config = ViTConfig(
    image_size=8,
    patch_size=2,
    num_channels=1,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    num_labels=10,
    initializer_range=0.1,  # at its default, 0.02, a model this small learns nothing in ten epochs
)
model = ViTForImageClassification(config)
optimizer = Zenith(model.parameters(), lr=0.3, window=options.window)
trainer = Trainer(
    model,
    TrainingArguments(
        output_dir=options.out,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=32,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=42,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    ),
    train_dataset=rows[:1347],
    eval_dataset=rows[1347:],
    compute_metrics=lambda p: {"accuracy": float((p[0].argmax(-1) == p[1]).mean())},
    optimizers=(optimizer, None),
    callbacks=[ZenithCallback()],
)
trainer.train()
accuracy = trainer.evaluate()["eval_accuracy"]
print(f"rate {optimizer.get_last_lr()[0]:.4f}, test accuracy {100 * accuracy:.2f} %")
