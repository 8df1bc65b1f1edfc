"""The state of a Keras optimizer under the schedule: made, read, set, saved and loaded."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from zenith import core
from zenith.core import NonFinite, ZenithState
from zenith.tf._host import untraced
from zenith.tf._state import StateVariables, as_tensors, dtype_for

__all__ = ["Stateful"]


class Stateful(keras.optimizers.Optimizer):  # type: ignore[misc]
    """A Keras optimizer with the state of the schedule, which can be set before it is built."""

    _state: Any = None  # the `StateVariables`, once it is built
    _loaded: Mapping[str, Any] | None = None  # what `build` is to restore, as in a file

    def _set_up(self, window: int, nonfinite: NonFinite) -> None:
        self.window = core.checked_window(window)
        self.nonfinite = core.checked_nonfinite(nonfinite)

    def _build_state(self, variables: Sequence[Any]) -> None:
        dtype = dtype_for(variable.dtype for variable in variables)
        self._state = StateVariables(self.window, dtype, self.add_variable)
        if self._loaded is not None:
            with untraced():
                self._load(self._loaded)
            self._loaded = None

    @property
    def zenith_state(self) -> ZenithState:
        """The state of the schedule: a snapshot of plain tensors.

        It can be set, to the state of any framework, to carry a run over; before `build` too, which
        then takes it over.

        Raises:
            TypeError: on setting what is no `ZenithState`.
            ValueError: on setting a state of another window, or with an impossible value.
        """
        if self._state is not None:
            snapshot: ZenithState = self._state.snapshot()
            return snapshot
        state = core.init(self.window) if self._loaded is None else _state_in(self._loaded)
        return as_tensors(state, dtype_for([keras.config.floatx()]))

    @zenith_state.setter
    def zenith_state(self, state: ZenithState) -> None:
        if self._state is not None:
            self._state.restore(state)
            return
        largest = float(np.finfo(dtype_for([keras.config.floatx()])).max)
        fields = core.checked(state, self.window, largest)
        at = int((self._loaded or {"zenith_at": 0})["zenith_at"])
        fields_in_file = {str(i): np.asarray(field) for i, field in enumerate(fields, at)}
        self._loaded = {"zenith_at": np.asarray(at), **(self._loaded or {}), **fields_in_file}

    def save_own_variables(self, store: Any) -> None:
        """Write the variables, and which are the schedule's, to a `.keras` or weights file.

        From the variable `zenith_at` on, six are the fields of the `ZenithState`.
        """
        if self._loaded is not None:
            for key, value in self._loaded.items():
                store[key] = value
            return
        super().save_own_variables(store)
        if self._state is not None:
            norms = self._state.variables.norms
            store["zenith_at"] = np.asarray([v is norms for v in self.variables].index(True))

    def load_own_variables(self, store: Any) -> None:
        """Read the variables that `save_own_variables` wrote; before `build`, keep them for it.

        Those of another optimizer are left alone, with a warning, as in Keras.

        Raises:
            ValueError: if they are those of another window.
        """
        values = {key: store[key][()] for key in store.keys()}  # noqa: SIM118  (it is no mapping)
        if "zenith_at" not in values:
            warnings.warn(
                f"Skipping variable loading for optimizer '{self.name}', because the saved "
                "optimizer has no schedule of ZENITH.",
                stacklevel=2,
            )
            return
        window = len(values[str(int(values["zenith_at"]))])
        if window != self.window:
            raise ValueError(
                f"`window` of the saved state must be that of the optimizer '{self.name}', "
                f"{self.window}, got {window}"
            )
        if self.built:
            self._load(values)
        else:
            self._loaded = values

    def _load(self, values: Mapping[str, Any]) -> None:
        if len(values) == len(ZenithState._fields) + 1:  # of a state that was set before `build`
            self._state.restore(_state_in(values))
            return
        super().load_own_variables({k: v for k, v in values.items() if k != "zenith_at"})


def _state_in(values: Mapping[str, Any]) -> ZenithState:
    """The state of the schedule among the variables that `save_own_variables` wrote."""
    at = int(values["zenith_at"])
    return ZenithState(*(values[str(at + i)] for i in range(len(ZenithState._fields))))
