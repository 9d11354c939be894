"""Parameters, modules, layers and cells, with PyTorch's names, shapes and initial values."""

from __future__ import annotations

from tinygradrnn.nn import init
from tinygradrnn.nn.cells import Cell, GatedCell, GRUCell, LSTMCell, LSTMState, RNNCell
from tinygradrnn.nn.layers import Dropout, Embedding, LayerNorm, Linear
from tinygradrnn.nn.module import LoadResult, Module
from tinygradrnn.nn.parameter import Parameter

__all__ = [
    "Cell",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GatedCell",
    "LSTMCell",
    "LSTMState",
    "LayerNorm",
    "Linear",
    "LoadResult",
    "Module",
    "Parameter",
    "RNNCell",
    "init",
]
