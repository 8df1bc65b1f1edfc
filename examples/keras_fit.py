"""Train the same network with Keras' SGD and with Zenith, by `model.fit`, and draw what happened.

    pip install "zenith-optim[tf]" matplotlib scikit-learn
    python examples/keras_fit.py                    # on scikit-learn's handwritten digits
    python examples/keras_fit.py --data-dir FOLDER  # on the four .gz files of Fashion-MNIST

Each run leaves `<optimizer>.csv` in the output folder, and both together `picture.png`. With
KERAS_BACKEND=jax or torch it runs on that backend of Keras.
"""

import argparse
import gzip
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from zenith.tf import Zenith, ZenithLogger

COLOURS = {"ZENITH": "#0072B2", "SGD": "#D55E00"}


def load(folder: Path | None) -> tuple[np.ndarray, ...]:
    """Return training and test images, in [0, 1], with their labels."""
    if folder is None:
        images, labels = load_digits(return_X_y=True)
        images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
        return images[:1347], labels[:1347], images[1347:], labels[1347:]
    train, test = (
        (
            read(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
            / np.float32(255),
            read(folder / f"{part}-labels-idx1-ubyte.gz", 8),
        )
        for part in ("train", "t10k")
    )
    return *train, *test


def read(path: Path, header: int) -> np.ndarray:
    """Return the bytes of a gzipped IDX file behind its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def network(shape: tuple[int, ...]) -> keras.Model:
    """Return a small convolutional network, with the same initial weights at every call."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def draw(histories: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Save the rate in force, the gradient norm and the test accuracy over the epochs."""
    panels = {
        "effective_learning_rate": "learning rate in force",
        "grad_norm": "gradient norm, last step of the epoch",
        "val_accuracy": "test accuracy",
    }
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name, history in histories.items():
            if key in history:
                epochs = range(1, len(history[key]) + 1)
                axes.plot(epochs, history[key], label=name, color=COLOURS[name])
        axes.set(title=title, xlabel="epoch", yscale="log" if key == "grad_norm" else "linear")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def main() -> None:
    """Read the command line, train, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder of Fashion-MNIST's four .gz files")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
    parser.add_argument("--output", type=Path, default=Path("keras-fit"))
    options = parser.parse_args()
    images, labels, test_images, test_labels = load(options.data_dir)
    options.output.mkdir(parents=True, exist_ok=True)

    optimizers = {
        "SGD": keras.optimizers.SGD(0.1),
        "ZENITH": Zenith(0.1, window=options.window),
    }
    histories = {}
    for name, optimizer in optimizers.items():
        model = network(images.shape[1:])
        model.compile(
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        csv = keras.callbacks.CSVLogger(options.output / f"{name}.csv")
        histories[name] = model.fit(
            images,
            labels,
            batch_size=32,
            epochs=options.epochs,
            validation_data=(test_images, test_labels),
            callbacks=[ZenithLogger(), csv] if name == "ZENITH" else [csv],
            verbose=2,
        ).history
    draw(histories, options.output / "picture.png")
    print(f"wrote {options.output / 'picture.png'}")


if __name__ == "__main__":
    main()
