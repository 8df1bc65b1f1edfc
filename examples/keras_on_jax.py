"""Train on the handwritten digits with Keras on JAX: the same Zenith as on TensorFlow.

    pip install keras jax zenith-optim scikit-learn
    python examples/keras_on_jax.py

The backend is chosen before Keras is imported; the rates and norms of every step go to a CSV file.
"""

import argparse
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras
from sklearn.datasets import load_digits

from zenith.logs import to_csv
from zenith.tf import Zenith, ZenithLogger

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
parser.add_argument("--out", type=Path, default=Path("keras_on_jax.csv"))
options = parser.parse_args()

keras.utils.set_random_seed(0)
pixels, digits = load_digits(return_X_y=True)
images = (pixels / 16).astype("float32")
model = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(10)]
)
model.compile(
    optimizer=Zenith(learning_rate=0.1, window=options.window),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
options.out.unlink(missing_ok=True)
history = model.fit(
    images[:1347],
    digits[:1347],
    batch_size=32,
    epochs=options.epochs,
    validation_data=(images[1347:], digits[1347:]),
    verbose=0,
    callbacks=[ZenithLogger(to_csv(options.out))],
).history
rate, accuracy = history["effective_learning_rate"][-1], history["val_accuracy"][-1]
print(f"{keras.backend.backend()}: rate {rate:.4f}, test accuracy {100 * accuracy:.2f} %")
