"""Finding the program of a cell, so that it is traced once and never out of date."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from tinygradrnn.backend import Backend, current_backend
from tinygradrnn.errors import UntraceableError
from tinygradrnn.scan.eager import Loop
from tinygradrnn.scan.fingerprint import Fingerprint, Unclear
from tinygradrnn.scan.program import Look, StepProgram, trace_step
from tinygradrnn.tape import recording
from tinygradrnn.tensor import Tensor


class _Entry(NamedTuple):
    program: StepProgram | None
    positions: list[int]  # of what was captured, among the tensors of the fingerprint
    reason: str
    kept: Any


_programs: dict[Any, _Entry] = {}
_lock = threading.RLock()
LIMIT = 256
"""Programs to keep; the one used longest ago makes room for a new one."""


def program_of(loop: Loop) -> tuple[StepProgram, list[Any]]:
    """The program of a loop's cell, and what it takes from outside, as it is now.

    Raises:
        UntraceableError: There is none, and why.
    """
    backend = loop.columns[0].backend
    if recording.trace is not None:
        raise UntraceableError("it runs inside a step that is being traced")
    try:
        print_ = Fingerprint(loop.cell)
    except Unclear as why:
        raise UntraceableError(str(why)) from None
    except Exception as error:  # of a property, an iterator, ... of the user's
        reason = f"to look through what it refers to raises {type(error).__name__}: {error}"
        raise UntraceableError(reason) from None
    going = loop.lengths is not None
    tracks = recording.enabled or recording.trial is not None
    key = (
        print_.key,
        backend,
        current_backend(),
        tracks,
        going,
        loop.inputs,
        tuple([(x.raw.shape[1:], x.raw.dtype, x.edge is not None) for x in loop.columns]),
        loop.carried.structure,
        tuple([(x.raw.shape, x.raw.dtype, x.edge is not None) for x in loop.begin]),
    )
    entry = _programs.get(key)
    if entry is None:
        with _lock:
            entry = _programs.get(key) or _make(loop, backend, tracks)
            _programs[key] = entry
            while len(_programs) > LIMIT:
                del _programs[next(iter(_programs))]
    if entry.program is None:
        raise UntraceableError(entry.reason)
    return entry.program, [print_.tensors[i] for i in entry.positions]


def _make(loop: Loop, backend: Backend, tracks: bool) -> _Entry:
    before = Fingerprint(loop.cell, undo=True)

    def looks(leaves: Sequence[Tensor], skip: int) -> list[Look]:
        return [
            Look(x.raw.shape[skip:], x.raw.dtype, tracks and x.edge is not None) for x in leaves
        ]

    state = loop.carried.structure
    batch = None if loop.lengths is None else loop.lengths.batch
    mode = recording.enabled, recording.trial
    recording.enabled, recording.trial = tracks, None  # a trial's program is that of the real run
    try:
        program = trace_step(
            loop.cell,
            backend,
            (loop.inputs, looks(loop.columns, 1)),
            (state, looks(loop.begin, 0)),
            batch,
            before.tensors,
            loop.name,
        )
        if Fingerprint(loop.cell).key != before.key:
            raise UntraceableError(
                "a step changes an attribute or another object that the cell uses"
            )
        places = {id(x): i for i, x in enumerate(before.tensors)}
        positions = [places[id(program.trace.captured[v])] for v in program.captured]
        program.trace.let_go()
    except UntraceableError as why:
        return _Entry(None, [], str(why), before.kept)
    except Exception as error:
        # Eagerly the same error comes up where the user expects it, if it does.
        return _Entry(None, [], f"{type(error).__name__}: {error}", before.kept)
    finally:
        recording.enabled, recording.trial = mode
        before.restore()
    return _Entry(program, positions, "", before.kept)
