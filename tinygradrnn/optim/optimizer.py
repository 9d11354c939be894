"""What all optimisers share: which parameters, when, and how to stop and go on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from tinygradrnn.backend import Array
from tinygradrnn.convert import as_array
from tinygradrnn.errors import CheckpointError, DtypeError, ShapeError
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.tensor import Tensor

State = dict[str, Array]
"""What an optimiser remembers of one parameter: named arrays of its shape."""


def check(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """`value` as a plain float; a ShapeError unless ``low <= value < high``."""
    number = float(value)
    if not low <= number < high:
        limit = f"at least {low:g}, and finite" if high == math.inf else f"in [{low:g}, {high:g})"
        raise ShapeError(f"{name}={value!r}; expected a number {limit}")
    return number


class Optimizer(ABC):
    """Replaces parameters by better ones, going by their gradients.

    To write one, derive from it and define `slots` and `update`.

    Args:
        parameters: Parameters, for example ``model.parameters()``.
        lr: The learning rate; the attribute may be set at any time.

    Attributes:
        parameters: The list of them.
        settings: The names of the constructor's numbers, which are attributes and are stored.

    Raises:
        ShapeError: There is no parameter, one is given twice, or a number makes no sense.
        DtypeError: Something is no Parameter.

    >>> class SignDescent(tgr.optim.Optimizer):
    ...     def update(self, xp, p, g, state, t):
    ...         return p - self.lr * xp.sign(g)
    >>> w = tgr.nn.Parameter([1.0, -2.0])
    >>> (w * w).sum().backward()
    >>> SignDescent([w], lr=0.5).step()
    >>> w.tolist()
    [0.5, -1.5]
    """

    settings: ClassVar[tuple[str, ...]] = ("lr",)

    def __init__(self, parameters: Iterable[Parameter], lr: float) -> None:
        self.parameters = list(parameters)
        name = type(self).__name__
        if not self.parameters:
            raise ShapeError(f"{name}: no parameters to optimise")
        seen: dict[int, int] = {}
        for i, p in enumerate(self.parameters):
            if not isinstance(p, Parameter):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise DtypeError(f"{name}: parameters[{i}] is a {type(p).__name__}, no Parameter")
            if id(p) in seen:
                raise ShapeError(f"{name}: parameters[{i}] is parameters[{seen[id(p)]}] again")
            seen[id(p)] = i
        self.lr = lr
        self._homes = [p.backend for p in self.parameters]  # where the states are
        self._states: list[State] = [{} for _ in self.parameters]
        self._steps = [0] * len(self.parameters)

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        # A plain float: a NumPy one would turn float32 parameters into float64.
        self._lr = check(f"{type(self).__name__}: lr", lr, 0)

    def slots(self) -> tuple[str, ...]:
        """The names of the arrays to remember of each parameter, which begin as zeros."""
        return ()

    @abstractmethod
    def update(self, xp: Any, p: Array, g: Array, state: State, t: int) -> Array:
        """The new values of one parameter.

        No array may be written to, as a tape may hold it; those in `state` are replaced.

        Args:
            xp: The array namespace.
            p: The parameter.
            g: Its gradient.
            state: What is remembered of it, by the names in `slots`.
            t: How many times it has been updated, this time included.
        """

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            backend, home, state = p.backend, self._homes[i], self._states[i]
            if home is not backend:  # the model has moved since
                for slot, array in state.items():
                    state[slot] = backend.from_host(home.to_host(array))
                self._homes[i] = backend
            for slot in self.slots():
                if slot not in state:
                    state[slot] = backend.xp.zeros_like(p.raw)
            self._steps[i] += 1
            with backend.quiet():
                new = self.update(backend.xp, p.raw, p.grad.raw, state, self._steps[i])
            p.assign(Tensor(backend.xp.asarray(new), backend))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    # --------------------------------------------------------------------------------- storing

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on bit for bit.

        ``{"lr": 0.1, ..., "steps": [3, 3], "0.velocity": ..., "1.velocity": ...}``: the settings
        and how often each parameter was updated, which survive JSON, and NumPy arrays by the
        parameter's place in the list.
        """
        stored: dict[str, Any] = {name: getattr(self, name) for name in self.settings}
        stored["steps"] = list(self._steps)
        for i, state in enumerate(self._states):
            for slot, array in state.items():
                stored[f"{i}.{slot}"] = self._homes[i].to_host(array)
        return stored

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned for an optimiser of like parameters.

        Raises:
            CheckpointError: It does not fit; names every problem, and nothing has changed.
        """
        from numpy import asarray

        name = type(self).__name__
        arrays = dict(state)
        try:
            settings = {key: arrays.pop(key) for key in self.settings}
            steps = [int(count) for count in arrays.pop("steps")]
            fresh = type(self)(self.parameters, **settings)  # which checks the numbers
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{name}: this is not its state: {error!r}") from error
        problems: list[str] = []
        if len(steps) != len(self.parameters):
            problems.append(f"{len(steps)} parameters, expected {len(self.parameters)}")
        expected = {
            f"{i}.{slot}": (i, slot)
            for i, count in enumerate(steps[: len(self.parameters)])
            if count > 0
            for slot in fresh.slots()
        }
        problems += [f"missing: {key}" for key in expected if key not in arrays]
        problems += [f"unexpected: {key}" for key in arrays if key not in expected]
        for key, (i, slot) in expected.items():
            if key in arrays:
                p, array = self.parameters[i], asarray(arrays[key])
                look = f"{array.dtype} {array.shape}"
                wanted = f"{str(p.dtype).rpartition('.')[2]} {tuple(p.shape)}"
                if look != wanted:
                    problems.append(f"{key} is {look}, expected {wanted}")
                elif not problems:
                    fresh._states[i][slot] = as_array(array, p.backend)
        if problems:
            raise CheckpointError(f"{name}: the state does not fit: {'; '.join(problems)}")
        fresh._steps = steps
        vars(self).update(vars(fresh))

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name)}" for name in self.settings)
        return f"{type(self).__name__}({len(self.parameters)} parameters, {numbers})"
