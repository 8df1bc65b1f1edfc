"""The schedule's state in the checkpoints that the frameworks write: `python -m zenith state`.

Nothing is unpickled, and nothing of a model is built or run: a checkpoint of torch is read with
`weights_only=True`, a file of Keras as JSON and HDF5, and of an orbax checkpoint only the arrays of
the schedule are read at all. The framework that wrote the file must be installed.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zenith.core import ZenithState, from_dict, to_dict

__all__ = ["read", "read_all"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_NUMPY = b"\x93NUMPY"
_FIELDS = ZenithState._fields
_Found = Iterator[tuple[str, ZenithState]]


def read(path: Path, at: str | None = None) -> ZenithState:
    """Return the one state of the schedule that a checkpoint holds, in plain Python numbers.

    Args:
        path: a checkpoint; see `read_all`.
        at: which state, by its place in the checkpoint, where there are several.

    Raises:
        OSError: if there is no such file, or it cannot be read.
        ValueError: if it is of no format known here, is broken, or holds no state (at that place),
            or several; their places are named.
    """
    found = read_all(path)
    if at is not None:
        if at not in found:
            raise ValueError(f"{path} holds no state of ZENITH at {at!r}, but {_named(found)}")
        return found[at]
    if len(found) != 1:
        raise ValueError(f"{path} must hold one state of ZENITH, got {_named(found)}")
    return next(iter(found.values()))


def read_all(path: Path) -> dict[str, ZenithState]:
    """Return every state of the schedule that a checkpoint holds, by its place there.

    Args:
        path: what `torch.save` wrote of a state_dict or of anything nested that holds one (of
            `zenith.torch.Zenith` or `ZenithLR`); a `.keras` or `.weights.h5` file; the directory
            of an orbax checkpoint, or of a step of its CheckpointManager, where the place begins
            with the item's name; or a JSON document of `zenith.to_dict`.

    Raises:
        OSError: if there is no such file, or it cannot be read.
        ValueError: if it is of no format known here, or is broken.
    """
    what, reader = _format(path)
    try:
        return dict(reader(path))
    except (OSError, ImportError):
        raise
    except Exception as error:  # of JSON, zip files, pickle, torch, orbax: each has its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} cannot be read as {what}: {reason}") from error


def _format(path: Path) -> tuple[str, Any]:
    if path.is_dir():
        return "an orbax checkpoint", _orbax
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(_HDF5):
        return "a weights file of Keras", _hdf5
    if start.startswith(_NUMPY):
        raise ValueError(
            f"{path} is a file of Equinox or NumPy, whose arrays have no names. Where it is read "
            "with its model, `zenith.to_dict(zenith.optax.zenith_state(opt_state))` is the state"
        )
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < path.stat().st_size:
        raise ValueError(
            f"{path} is a safetensors file: the weights of a model, without its optimizer's state"
        )
    if start.lstrip()[:1] in (b"{", b"["):
        return "a JSON document", _json
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" in archive.namelist():
                return "a .keras file", _keras
    return "a checkpoint of torch, with weights_only=True", _torch


def _named(found: Mapping[str, ZenithState]) -> str:
    return f"{len(found)}, at {', '.join(found)}" if found else "none"


def _states(tree: Any, at: tuple[Any, ...] = ()) -> _Found:
    """Every state in nested mappings and sequences."""
    if isinstance(tree, Mapping):
        for prefix in ("", "zenith_"):  # the latter in the param_groups of `zenith.torch.Zenith`
            if all(prefix + field in tree for field in _FIELDS):
                yield "/".join(map(str, at)) or ".", _checked(tree, prefix)
                return
        for key, value in tree.items():
            yield from _states(value, (*at, key))
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from _states(value, (*at, i))


def _checked(tree: Mapping[str, Any], prefix: str = "") -> ZenithState:
    if "version" in tree:
        return from_dict(tree)
    return from_dict(to_dict(ZenithState(*(_leaf(tree[prefix + field]) for field in _FIELDS))))


def _leaf(value: Any) -> Any:
    """The number or array, also out of a variable of Flax NNX as orbax saves it."""
    return value["value"] if isinstance(value, Mapping) and "value" in value else value


def _json(path: Path) -> _Found:
    return _states(json.loads(path.read_text(encoding="utf-8")))


def _torch(path: Path) -> _Found:
    import torch

    mmap = zipfile.is_zipfile(path)  # so that of a model's gigabytes nothing is read
    return _states(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap))


def _keras(path: Path) -> _Found:
    """A `.keras` file: a schedule is in its configuration, an optimizer among its variables."""
    with zipfile.ZipFile(path) as archive:
        yield from _states(json.loads(archive.read("config.json")))
        with archive.open("model.weights.h5") as file:
            yield from _hdf5(file)


def _hdf5(file: Any) -> _Found:
    import h5py

    with h5py.File(file) as weights:
        places: list[str] = []
        weights.visit(lambda name: places.append(name) if name.endswith("/zenith_at") else None)
        for place in places:
            group = weights[place].parent
            first = int(group["zenith_at"][()])
            values = {field: group[str(first + i)][()] for i, field in enumerate(_FIELDS)}
            yield group.name.strip("/"), _checked(values)


def _orbax(path: Path) -> _Found:
    items = [path, *sorted(path.iterdir())]  # of the step of a CheckpointManager
    items = [item for item in items if (item / "_METADATA").exists()]
    if not items:
        raise ValueError(
            "it has no file _METADATA. (Of what a CheckpointManager writes, name the folder of a "
            "step. A distributed checkpoint of torch is made a file by "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save.)"
        )
    for item in items:
        at = () if item in (path, path / "default") else (item.name,)
        yield from _states(_restored(item.absolute()), at)


def _restored(path: Path) -> Any:
    """The tree of an orbax checkpoint, of which only the schedules are read."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        places = checkpointer.metadata(path).item_metadata.tree
        item = _only_states(places, ocp.PLACEHOLDER)
        args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        restore = ocp.args.PyTreeRestore(item=item, restore_args=args)
        return checkpointer.restore(path, args=restore)


def _only_states(tree: Any, placeholder: Any) -> Any:
    """The tree with a placeholder, which is not read, for every leaf that is of no schedule."""
    if isinstance(tree, Mapping):
        if set(_FIELDS) <= tree.keys():
            return tree
        return {key: _only_states(value, placeholder) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_only_states(value, placeholder) for value in tree]
    return tree if tree is None else placeholder
