"""Optimisers with PyTorch's names, arguments and numbers, and gradient clipping."""

from __future__ import annotations

from tinygradrnn.optim.adam import Adam, AdamW
from tinygradrnn.optim.clip import clip_grad_norm_, clip_grad_value_
from tinygradrnn.optim.optimizer import Optimizer
from tinygradrnn.optim.rmsprop import RMSprop
from tinygradrnn.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "clip_grad_norm_", "clip_grad_value_"]
