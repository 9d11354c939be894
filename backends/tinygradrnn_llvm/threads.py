"""A few threads that wait for parts of a loop's batch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

Task = Callable[[], Any]
Item = tuple[Task, list[BaseException], threading.Semaphore]


def count() -> int:
    """How many threads a loop may use."""
    for name in ("TINYGRADRNN_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isdigit() and int(text) > 0:
            return int(text)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Pool:
    """Threads that are started when first needed and then wait for more."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Item] = SimpleQueue()
        self._lock = threading.Lock()
        self._size = 0

    def run(self, tasks: Sequence[Task]) -> None:
        """Run all tasks, the first in this thread, and return when all are done.

        A task that no thread has begun when this one has nothing else to do is run here too.
        """
        with self._lock:
            while self._size < len(tasks) - 1:
                name = f"tinygradrnn-llvm-{self._size}"
                threading.Thread(target=self._work, daemon=True, name=name).start()
                self._size += 1
        errors: list[BaseException] = []
        done = threading.Semaphore(0)
        for task in tasks[1:]:
            self._queue.put((task, errors, done))
        try:
            tasks[0]()
            while True:
                self._one(self._queue.get_nowait())
        except Empty:
            pass
        finally:
            for _ in tasks[1:]:
                done.acquire()
        if errors:
            raise errors[0]

    def _work(self) -> None:
        while True:
            self._one(self._queue.get())

    def _one(self, item: Item) -> None:
        task, errors, done = item
        try:
            task()
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()


pool = Pool()


def _renew() -> None:
    global pool
    pool = Pool()  # a forked process has the queue, but none of the threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
