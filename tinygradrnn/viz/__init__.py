"""Pictures of time: the unrolled tape, and what of a gradient arrives where."""

from __future__ import annotations

from tinygradrnn.viz.flow import Decay, GradientFlow, Spectrum, decay, gradient_flow, spectrum
from tinygradrnn.viz.report import report
from tinygradrnn.viz.saliency import Saliency, saliency
from tinygradrnn.viz.tape import TapePicture, tape

__all__ = [
    "Decay",
    "GradientFlow",
    "Saliency",
    "Spectrum",
    "TapePicture",
    "decay",
    "gradient_flow",
    "report",
    "saliency",
    "spectrum",
    "tape",
]
