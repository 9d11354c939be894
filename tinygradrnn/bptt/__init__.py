"""Back-propagation through time: how far back, at what price, and what it says."""

from __future__ import annotations

from tinygradrnn.bptt.anatomy import Anatomy, anatomy
from tinygradrnn.bptt.audit import Audit, Finding, audit
from tinygradrnn.bptt.jacobians import Gradients, StepTerms, closed_form, rtrl, step_terms
from tinygradrnn.bptt.stream import Stretch, detach, stream
from tinygradrnn.scan.segments import Checkpoint, Report
from tinygradrnn.scan.truncation import (
    Chunk,
    Clip,
    Depth,
    Full,
    Random,
    Schedule,
    Truncation,
    Window,
)

__all__ = [
    "Anatomy",
    "Audit",
    "Checkpoint",
    "Chunk",
    "Clip",
    "Depth",
    "Finding",
    "Full",
    "Gradients",
    "Random",
    "Report",
    "Schedule",
    "StepTerms",
    "Stretch",
    "Truncation",
    "Window",
    "anatomy",
    "audit",
    "closed_form",
    "detach",
    "rtrl",
    "step_terms",
    "stream",
]
