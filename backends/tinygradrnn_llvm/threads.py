"""A few threads that work on parts of one task, and wait for the next one wide awake.

The parts of a task are calls of one native function, and the threads that help are told by native
code as well: waking a thread by Python's means takes as long as a small matrix product. A helper
that was told nothing for a while goes to sleep; then Python wakes it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from typing import Any

import numpy as np

# What a helper's mailbox says: nothing, a task that nobody has begun, one that it works on, one
# that is done, or that it must be woken.
_IDLE, _GIVEN, _TAKEN, _DONE, _ASLEEP = range(5)
_BOX = 128  # bytes: mailboxes share no line of the cache
_POLITE = 512  # looks, after which another thread may have the processor; a power of two
_PATIENCE = 20_000  # looks into the mailbox before going to sleep: some tenths of a millisecond


@cache
def count() -> int:
    """How many threads a loop or a product may use; found out once.

    Not more than there are processors: who waits, waits awake.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    most = len(affinity(0)) if affinity else os.cpu_count() or 1
    for name in ("TINYGRADRNN_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isdigit() and int(text) > 0:
            return min(int(text), most)
    return most


def source(triple: str) -> str:
    """IR of what is done with a mailbox, which holds its state, a function, and its argument."""
    pause = "call void @llvm.x86.sse2.pause()" if triple.startswith("x86_64") else ""
    # Where threads are more than processors, the one that is waited for has to get one.
    declared, let = "", ""
    if hasattr(os, "sched_yield"):
        declared, let = "declare i32 @sched_yield()", "call i32 @sched_yield()"
    return f"""
target triple = "{triple}"
declare void @llvm.x86.sse2.pause()
{declared}

define internal void @rest(i64 %looks) {{
entry:
  {pause}
  %few = and i64 %looks, {_POLITE - 1}
  %now = icmp eq i64 %few, {_POLITE - 1}
  br i1 %now, label %let, label %end
let:
  {let}
  br label %end
end:
  ret void
}}

; Do what is put into the mailbox, until for long there was nothing.
define void @help(ptr %box, i64 %patience) {{
entry:
  br label %look
look:
  %looks = phi i64 [ 0, %entry ], [ %more, %again ], [ 0, %work ]
  %said = load atomic i64, ptr %box acquire, align 8
  %given = icmp eq i64 %said, {_GIVEN}
  br i1 %given, label %take, label %wait
take:
  %pair = cmpxchg ptr %box, i64 {_GIVEN}, i64 {_TAKEN} seq_cst seq_cst
  %mine = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %mine, label %work, label %wait
work:
  %f = getelementptr i8, ptr %box, i64 8
  %function = load ptr, ptr %f
  %a = getelementptr i8, ptr %box, i64 16
  %argument = load ptr, ptr %a
  call void %function(ptr %argument)
  store atomic i64 {_DONE}, ptr %box release, align 8
  br label %look
wait:
  {pause}
  %more = add i64 %looks, 1
  %tired = icmp ugt i64 %more, %patience
  br i1 %tired, label %rest, label %again
rest:
  %slept = cmpxchg ptr %box, i64 {_IDLE}, i64 {_ASLEEP} seq_cst seq_cst
  %sleeps = extractvalue {{ i64, i1 }} %slept, 1
  br i1 %sleeps, label %end, label %again
again:
  br label %look
end:
  ret void
}}

; Call a function with all arguments: the first, those that no helper took, and wait for the rest.
define void @lead(ptr %function, ptr %first, i64 %step, i64 %count, ptr %boxes, i64 %helpers) {{
entry:
  br label %giving
giving:
  %g = phi i64 [ 0, %entry ], [ %g.next, %give ]
  %more = icmp ult i64 %g, %helpers
  br i1 %more, label %give, label %own
give:
  %g.slot = getelementptr ptr, ptr %boxes, i64 %g
  %g.box = load ptr, ptr %g.slot
  %f = getelementptr i8, ptr %g.box, i64 8
  store ptr %function, ptr %f
  %g.next = add i64 %g, 1
  %g.from = mul i64 %g.next, %step
  %g.argument = getelementptr i8, ptr %first, i64 %g.from
  %a = getelementptr i8, ptr %g.box, i64 16
  store ptr %g.argument, ptr %a
  %given = cmpxchg ptr %g.box, i64 {_IDLE}, i64 {_GIVEN} seq_cst seq_cst
  br label %giving
own:
  br label %each
each:
  %i = phi i64 [ 0, %own ], [ %next, %on ]
  %left = icmp ult i64 %i, %count
  br i1 %left, label %whose, label %end
whose:
  %next = add i64 %i, 1
  %from = mul i64 %i, %step
  %argument = getelementptr i8, ptr %first, i64 %from
  %index = sub i64 %i, 1
  %helped = icmp ult i64 %index, %helpers
  br i1 %helped, label %ask, label %alone
ask:
  %slot = getelementptr ptr, ptr %boxes, i64 %index
  %box = load ptr, ptr %slot
  %pair = cmpxchg ptr %box, i64 {_GIVEN}, i64 {_IDLE} seq_cst seq_cst
  %mine = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %mine, label %alone, label %look
look:
  %looks = phi i64 [ 0, %ask ], [ %looked, %wait ]
  %looked = add i64 %looks, 1
  %said = load atomic i64, ptr %box acquire, align 8
  switch i64 %said, label %wait [ i64 {_DONE}, label %done
                                  i64 {_ASLEEP}, label %alone ]
wait:
  call void @rest(i64 %looks)
  br label %look
done:
  store atomic i64 {_IDLE}, ptr %box seq_cst, align 8
  br label %on
alone:
  call void %function(ptr %argument)
  br label %on
on:
  br label %each
end:
  ret void
}}
"""


@cache
def _native() -> Any:
    from tinygradrnn_llvm.machine import compiled, host

    code, pointer, number = compiled(source(host().triple), host()), ctypes.c_void_p, ctypes.c_int64
    helping = code.function("help", [pointer, number])
    return helping, code.function("lead", [pointer, pointer, number, number, pointer, number])


class Helper:
    """A thread and its mailbox."""

    def __init__(self, name: str) -> None:
        memory = np.zeros(2 * _BOX // 8, np.int64)
        first = -memory.ctypes.data % _BOX // 8
        self._says = memory[first : first + 1]
        self.box = self._says.ctypes.data
        self._bell = threading.Semaphore(0)
        threading.Thread(target=self._work, daemon=True, name=name).start()

    def _work(self) -> None:
        helping, _ = _native()
        while True:
            helping(self.box, _PATIENCE)
            self._bell.acquire()

    def wake(self) -> None:
        """Have it look into its mailbox."""
        if self._says[0] == _ASLEEP:
            self._says[0] = _IDLE
            self._bell.release()


class Pool:
    """Helpers that are started when first needed."""

    def __init__(self) -> None:
        self._free: list[Helper] = []
        self._size = 0
        self._lock = threading.Lock()

    def run(self, function: int, first: int, step: int, count: int) -> None:
        """Call a native function with `count` arguments, and return when all calls have.

        This thread does the first part, and those that no helper has begun by then.

        Args:
            function: Its address.
            first: The first argument, an address.
            step: From an argument to the next, in bytes.
            count: How many.
        """
        if count == 1:
            _native()[1](function, first, step, 1, None, 0)
            return
        wanted = count - 1
        with self._lock:
            while self._size < wanted:
                self._free.append(Helper(f"tinygradrnn-llvm-{self._size}"))
                self._size += 1
            start = max(0, len(self._free) - wanted)
            helpers = self._free[start:]
            del self._free[start:]
        try:
            for helper in helpers:
                helper.wake()
            boxes = (ctypes.c_void_p * len(helpers))(*[helper.box for helper in helpers])
            _native()[1](function, first, step, count, boxes, len(helpers))
        finally:
            with self._lock:
                self._free += helpers


pool = Pool()


def _renew() -> None:
    global pool
    pool = Pool()  # a forked process has the mailboxes, but none of the threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
