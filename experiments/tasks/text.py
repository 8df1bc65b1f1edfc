"""The next character of a text, by a recurrent network and by a small transformer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.errors import UserError, explained
from experiments.tasks.classify import mixed

__all__ = ["NETWORKS", "Gru", "Text", "Transformer", "text"]

LENGTH = 64  # characters of a window
DIGEST = "09da283bf60fee1d"  # how the SHA-256 of the text that is shipped begins


class Gru(nn.Module):
    """One GRU of 128 units over embeddings of 32: 77,503 parameters on the text that is shipped."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 32)
        self.recurrent = nn.GRU(32, 128, batch_first=True)
        self.head = nn.Linear(128, vocabulary)

    def forward(self, characters: Tensor) -> Tensor:
        """Return the scores of what follows each: `(n, length)` to `(n, length, vocabulary)`."""
        states, _ = self.recurrent(self.embedding(characters))
        scores: Tensor = self.head(states)
        return scores


class Transformer(nn.Module):
    """Two layers of 64 units and 4 heads, normalised before each part: 83,423 parameters there."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 64)
        self.place = nn.Parameter(0.02 * torch.randn(LENGTH, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=True)
        norm = nn.LayerNorm(64)
        self.layers = nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False)
        self.head = nn.Linear(64, vocabulary)

    def forward(self, characters: Tensor) -> Tensor:
        """Return the scores of what follows each: `(n, length)` to `(n, length, vocabulary)`."""
        length = characters.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, characters.device)
        states = self.embedding(characters) + self.place[:length]
        scores: Tensor = self.head(self.layers(states, mask, is_causal=True))
        return scores


NETWORKS = {"text-gru": Gru, "text-transformer": Transformer}


@dataclass(frozen=True)
class Text:
    """A text in windows of 64 characters, evaluated after each epoch: a `Task`.

    The first eight tenths are learnt, the next is for validation, and the last for the test. The
    windows of an epoch begin at an offset of their own and lie side by side; what is left after
    whole batches is left out.
    """

    name: str
    parts: dict[str, Tensor]  # int64 in 0..vocabulary - 1, of `train`, `validation` and `test`
    vocabulary: int
    digest: str
    make: Callable[[int], nn.Module]
    batch: int
    segments: int
    threads: int | None = 1
    epochs: float = 1.0

    @property
    def steps(self) -> int:
        """In an epoch."""
        return (len(self.parts["train"]) // LENGTH - 1) // self.batch

    def network(self) -> nn.Module:
        """Return the network for as many characters as there are."""
        return self.make(self.vocabulary)

    def batches(self, seed: int, segment: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield windows, and what follows each of their characters; both `(batch, 64)`."""
        generator = torch.Generator().manual_seed(mixed(seed, segment))
        offset = int(torch.randint(LENGTH, (), generator=generator))
        inputs, targets = _windows(self.parts["train"][offset:])
        order = torch.randperm(len(inputs), generator=generator)
        for indices in torch.split(order, self.batch)[: self.steps]:
            yield inputs[indices], targets[indices]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy, in nats per character."""
        return cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the loss, in nats per character, and the accuracy, in percent, of both parts."""
        return {**self._measured(model, "test"), **self._measured(model, "validation")}

    def validation_loss(self, model: nn.Module) -> float:
        """Return the loss of the validation part."""
        return self._measured(model, "validation")["validation_loss"]

    def described(self) -> dict[str, Any]:
        """Return the sizes, of windows of the text for images, and by what a run is judged."""
        return {
            "train_images": len(self.parts["train"]) // LENGTH,
            "test_images": len(self.parts["test"]) // LENGTH,
            "batch": self.batch,
            "length": LENGTH,
            "vocabulary": self.vocabulary,
            "text": self.digest,
            "measure": "test_loss",
        }

    @torch.no_grad()
    def _measured(self, model: nn.Module, part: str) -> dict[str, float]:
        device = next(model.parameters()).device
        pairs = (torch.split(x.to(device), 256) for x in _windows(self.parts[part]))
        loss, right, count = 0.0, 0, 0
        for inputs, targets in zip(*pairs, strict=True):
            scores = model(inputs).flatten(0, 1)
            loss += float(cross_entropy(scores, targets.flatten(), reduction="sum"))
            right += int((scores.argmax(1) == targets.flatten()).sum())
            count += targets.numel()
        return {f"{part}_loss": loss / count, f"{part}_accuracy": 100 * right / count}


def text(name: str, path: Path | None, epochs: int | None, batch: int | None) -> Text:
    """Return the task of a network.

    Args:
        name: one of `NETWORKS`.
        path: a text in UTF-8; by default the source of scikit-learn's package `cluster`.
        epochs: passes over the text; by default 20.
        batch: windows in a batch; by default 32.

    Raises:
        UserError: if the text is not what it must be, or too short.
    """
    content, batch = _shipped() if path is None else _read(path), batch or 32
    least = max(10 * (LENGTH + 1), LENGTH * (batch + 1) * 10 // 8)
    if len(content) < least:
        raise UserError(
            f"the text must have {least} characters or more for a batch of {batch}, "
            f"got {len(content)}"
        )
    known = sorted(set(content))
    places = {character: i for i, character in enumerate(known)}
    whole = torch.tensor([places[character] for character in content])
    tenth = len(whole) // 10
    names = ("train", "validation", "test")
    parts = dict(
        zip(names, torch.split(whole, [len(whole) - 2 * tenth, tenth, tenth]), strict=True)
    )
    return Text(name, parts, len(known), _digest(content), NETWORKS[name], batch, epochs or 20)


def _windows(characters: Tensor) -> tuple[Tensor, Tensor]:
    """Windows side by side, and the same one character later."""
    count = (len(characters) - 1) // LENGTH
    inputs, targets = characters[:-1], characters[1:]
    return inputs[: count * LENGTH].view(-1, LENGTH), targets[: count * LENGTH].view(-1, LENGTH)


def _shipped() -> str:
    """The modules of `sklearn.cluster` one after another: Python, and English in its docstrings."""
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    folder = Path(spec.submodule_search_locations[0], "cluster")
    content = "".join(_read(path) for path in sorted(folder.glob("*.py")))
    if (found := _digest(content)) != DIGEST:
        raise UserError(
            f"the text must be `sklearn.cluster` of scikit-learn 1.9.1 (SHA-256 {DIGEST}...), got "
            f"that of {version('scikit-learn')} ({found}..., {len(content)} characters)"
        )
    return content


def _read(path: Path) -> str:
    with explained(f"{path}: cannot be read"):
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{path}: not a text in UTF-8") from None


def _digest(content: str) -> str:
    return sha256(content.encode()).hexdigest()[:16]
