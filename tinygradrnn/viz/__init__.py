"""Pictures of time: the unrolled tape, and what of a gradient arrives where."""

from __future__ import annotations

from tinygradrnn.viz.report import report
from tinygradrnn.viz.saliency import Saliency, saliency
from tinygradrnn.viz.tape import TapePicture, tape

__all__ = ["Saliency", "TapePicture", "report", "saliency", "tape"]
