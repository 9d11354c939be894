"""Modules: what holds parameters and computes with them, as in PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self, cast

from tinygradrnn.backend import Backend, get_backend
from tinygradrnn.convert import as_array
from tinygradrnn.errors import CheckpointError
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.tensor import Tensor


class LoadResult(NamedTuple):
    """The names that :meth:`Module.load_state_dict` passed over when it was not strict."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """Something with parameters: derive from it, set attributes, and define ``forward``.

    Parameters, modules, and lists, tuples and dicts of them are found among the attributes, in the
    order in which these were first set. There is no ``super().__init__()`` to call.

    >>> class Model(tgr.nn.Module):
    ...     def __init__(self):
    ...         self.scale = tgr.nn.Parameter([2.0])
    ...         self.layers = [tgr.nn.Linear(3, 3), tgr.nn.Linear(3, 1, bias=False)]
    ...     def forward(self, x):
    ...         for layer in self.layers:
    ...             x = layer(x)
    ...         return self.scale * x
    >>> model = Model()
    >>> [name for name, _ in model.named_parameters()]
    ['scale', 'layers.0.weight', 'layers.0.bias', 'layers.1.weight']
    >>> model(tgr.ones((5, 3))).shape
    (5, 1)
    >>> model
    Model(
      scale: Parameter float32 (1,)
      layers.0: Linear(3, 3)
      layers.1: Linear(3, 1, bias=False)
    )
    """

    training: bool = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute ``forward``."""
        return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        # So that a printed tape calls a parameter what the outermost module that holds it does.
        for path, parameter in _parameters(_held(value, name)):
            parameter.name = path

    # --------------------------------------------------------------------------- what it holds

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted path; one held at several paths comes once, first."""
        seen: set[int] = set()
        for path, parameter in _parameters(_held_by(self)):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield path, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def modules(self) -> Iterator[Module]:
        """This module and all within it, each once."""
        return iter(_modules(self, {}).values())

    # ------------------------------------------------------------------------- changing them all

    def train(self, mode: bool = True) -> Self:
        """Set ``training`` here and within: Dropout heeds it."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """The opposite of :meth:`train`."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget every parameter's gradient."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, backend: str | Backend) -> Self:
        """Move parameters, with their gradients, and tensors among the attributes to a backend.

        Raises:
            BackendError: It is unknown or not usable here; nothing has moved.
        """
        target = get_backend(backend)
        for parameter in self.parameters():
            parameter.move(target)
        for module in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and not isinstance(value, Parameter):
                    setattr(module, name, value.detach().to(target))
        return self

    # --------------------------------------------------------------------------------- storing

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter's values by dotted path, also of those held at several paths.

        A snapshot: a later change of the parameters does not change it.
        """
        return {path: parameter.detach() for path, parameter in _parameters(_held_by(self))}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Take over the values of a state_dict, of Tensors or of NumPy arrays, in our own dtypes.

        Args:
            state: Values by dotted path.
            strict: Whether every parameter must be there, and nothing else.

        Raises:
            CheckpointError: Names every missing, unexpected and misshapen key; nothing has changed.

        >>> tgr.nn.Linear(2, 1).load_state_dict({"weight": tgr.ones((1, 3)), "b": tgr.ones(1)})
        Traceback (most recent call last):
        ...
        tinygradrnn.errors.CheckpointError: Linear: missing: bias; unexpected: b; \
weight has shape (1, 3), expected (1, 2)
        """
        from numpy import asarray

        own = dict(_parameters(_held_by(self)))
        missing = [path for path in own if path not in state]
        unexpected = [path for path in state if path not in own]
        problems: list[str] = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        loaded: list[tuple[Parameter, Tensor]] = []
        for path, parameter in own.items():
            if path not in state:
                continue
            value = state[path]
            host: Any = value.numpy() if isinstance(value, Tensor) else asarray(value)
            if tuple(host.shape) != tuple(parameter.shape):
                shapes = f"{tuple(host.shape)}, expected {tuple(parameter.shape)}"
                problems.append(f"{path} has shape {shapes}")
            elif host.dtype.kind not in "iuf":
                problems.append(f"{path} is {host.dtype}, expected {parameter.dtype}")
            else:
                array = as_array(host, parameter.backend, parameter.dtype)
                loaded.append((parameter, Tensor(array, parameter.backend)))
        if problems:
            raise CheckpointError(f"{type(self).__name__}: {'; '.join(problems)}")
        for parameter, value in loaded:
            parameter.assign(value)
        return LoadResult(missing, unexpected)

    # -------------------------------------------------------------------------------- in words

    def extra_repr(self) -> str:
        """What stands between the parentheses when printed: usually the constructor's arguments."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = [extra] if extra else []
        for path, held in _held_by(self):
            if isinstance(held, Module):
                lines.append(f"{path}: {held!r}")
            elif not extra:  # a module that describes itself need not list its own parameters
                lines.append(f"{path}: Parameter {held.dtype} {tuple(held.shape)}")
        if (len(lines) == 1 and extra) or not lines:
            return f"{type(self).__name__}({extra})"
        inner = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inner}\n)"


# ------------------------------------------------------------------------------------- finding them

Held = tuple[str, Parameter | Module]


def _held_by(module: Module) -> Iterator[Held]:
    """The parameters and modules among a module's attributes, with their paths."""
    for name, value in vars(module).items():
        yield from _held(value, name)


def _held(value: Any, path: str) -> Iterator[Held]:
    """The value itself if it is a parameter or module; those within a list, tuple or dict."""
    if isinstance(value, (Parameter, Module)):
        yield path, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(cast("Iterable[Any]", value)):
            yield from _held(item, f"{path}.{i}")
    elif isinstance(value, dict):
        for key, item in cast("dict[Any, Any]", value).items():
            yield from _held(item, f"{path}.{key}")


def _parameters(held: Iterable[Held]) -> Iterator[tuple[str, Parameter]]:
    """The parameters behind `held`; one held at several paths comes at each."""
    for path, item in held:
        if isinstance(item, Parameter):
            yield path, item
        else:
            for rest, parameter in _parameters(_held_by(item)):
                yield f"{path}.{rest}", parameter


def _modules(module: Module, found: dict[int, Module]) -> dict[int, Module]:
    if id(module) not in found:
        found[id(module)] = module
        for _, item in _held_by(module):
            if isinstance(item, Module):
                _modules(item, found)
    return found
