"""Parameters, modules, layers and cells, with PyTorch's names, shapes and initial values."""

from __future__ import annotations

from tinygradrnn.nn import init
from tinygradrnn.nn.attention import AttentionCell, AttentionOutput, BoundAttention
from tinygradrnn.nn.cells import Cell, GatedCell, GRUCell, LSTMCell, LSTMState, RNNCell
from tinygradrnn.nn.gru_variants import ChoGRUCell, LayerNormGRUCell, MinimalGatedCell
from tinygradrnn.nn.layers import Dropout, Embedding, LayerNorm, Linear
from tinygradrnn.nn.lstm_variants import (
    CoupledLSTMCell,
    DropoutLSTMCell,
    LayerNormLSTMCell,
    PeepholeLSTMCell,
)
from tinygradrnn.nn.module import LoadResult, Module
from tinygradrnn.nn.parallel_cells import MinGRUCell, MinLSTMCell
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.nn.recurrent import GRU, LSTM, RNN, RecurrentLayer
from tinygradrnn.nn.regularised import (
    RecurrentDropout,
    VariationalDropout,
    VariationalMasks,
    VariationalState,
    Zoneout,
)
from tinygradrnn.nn.simple_cells import ConcatRNNCell, HiddenCell, IndRNNCell
from tinygradrnn.nn.wrappers import Bidirectional, CellWrapper, LearnedState, Residual, Stacked

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AttentionCell",
    "AttentionOutput",
    "Bidirectional",
    "BoundAttention",
    "Cell",
    "CellWrapper",
    "ChoGRUCell",
    "ConcatRNNCell",
    "CoupledLSTMCell",
    "Dropout",
    "DropoutLSTMCell",
    "Embedding",
    "GRUCell",
    "GatedCell",
    "HiddenCell",
    "IndRNNCell",
    "LSTMCell",
    "LSTMState",
    "LayerNorm",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "LearnedState",
    "Linear",
    "LoadResult",
    "MinGRUCell",
    "MinLSTMCell",
    "MinimalGatedCell",
    "Module",
    "Parameter",
    "PeepholeLSTMCell",
    "RNNCell",
    "RecurrentDropout",
    "RecurrentLayer",
    "Residual",
    "Stacked",
    "VariationalDropout",
    "VariationalMasks",
    "VariationalState",
    "Zoneout",
    "init",
]
