"""Rewriting the calls of a step so that more of them can leave the loop.

Two rules of algebra. The product of a concatenation is a sum of products, of which those of the
input need no state: the lecture's stacked form ``concat([h, x]) @ W`` costs no more than the other.
And the terms of a sum can be added in any order, first those that are known before the loop.
Results differ by rounding only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from tinygradrnn.loop import Call, Operand, Var


def rewrite(
    calls: Sequence[Call],
    *,
    constants: Iterable[Var],
    stacked: Iterable[Var],
    carried: Sequence[tuple[Var, Var]],
    results: Iterable[Var],
) -> list[Call]:
    """The same results by calls of which fewer depend on the state. Arguments as of ``sort``."""
    known = {*constants, *stacked}
    calls = [c for c in calls if c.output not in known]
    return _Rewriter(calls, set(constants), carried, list(results)).run()


def behind(made: dict[Var, Call], ends: Iterable[Var]) -> set[Var]:
    """The Vars that `ends` depend on, themselves included."""
    found: set[Var] = set()
    stack = list(ends)
    while stack:
        v = stack.pop()
        if v not in found:
            found.add(v)
            if v in made:
                stack.extend(made[v].vars)
    return found


class _Rewriter:
    def __init__(
        self,
        calls: list[Call],
        constants: set[Var],
        carried: Sequence[tuple[Var, Var]],
        results: list[Var],
    ) -> None:
        self.calls, self.constants = calls, constants
        self.made = {c.output: c for c in calls}
        self.recurrent = {a for a, _ in carried}
        for call in calls:
            if any(v in self.recurrent for v in call.vars):
                self.recurrent.add(call.output)
        leaving = [b for _, b in carried]
        self.next_state = behind(self.made, leaving)
        used = behind(self.made, [*leaving, *results])
        self.users: dict[Var, list[Call]] = {}
        for call in calls:
            if call.output in used:
                for v in call.vars:
                    self.users.setdefault(v, []).append(call)
        self.wanted = Counter([*leaving, *results])
        self.new: list[Call] = []
        self._parts: dict[Any, Var] = {}

    def run(self) -> list[Call]:
        for call in self.calls:
            if call.op == "matmul" and self._product_of_a_concatenation(call):
                continue
            if call.op == "getitem" and self._part_of_a_product(call):
                continue
            if call.op == "add" and self._sum(call):
                continue
            self.new.append(call)
        return self.new

    def _call(self, op: str, inputs: Sequence[Operand], params: dict[str, Any], output: Var) -> Var:
        call = Call(op, tuple(inputs), params, output)
        self.new.append(call)
        self.made[output] = call
        if any(v in self.recurrent for v in call.vars):
            self.recurrent.add(output)
        return output

    def _part(self, x: Var, axis: int, start: int, stop: int) -> Var:
        """Some rows or columns of a matrix."""
        key = (x, axis, start, stop)
        if key not in self._parts:
            other = slice(0, x.shape[1 - axis], 1)
            cut = slice(start, stop, 1)
            where = (cut, other) if axis == 0 else (other, cut)
            shape = tuple(stop - start if i == axis else n for i, n in enumerate(x.shape))
            part = Var(shape, x.dtype, f"{x.name}[{start}:{stop}]")
            self._parts[key] = self._call("getitem", (x,), {"key": where}, part)
        return self._parts[key]

    # ------------------------------------------------------------------------------- products

    def _product_of_a_concatenation(self, call: Call) -> bool:
        """``concat([h, x]) @ W`` as ``h @ W[:n] + x @ W[n:]``, if one is known before the loop."""
        a, w = call.inputs
        if not isinstance(a, Var) or not isinstance(w, Var) or len(w.shape) != 2:
            return False
        joined = self.made.get(a)
        if joined is None or joined.op != "concat":
            return False
        if joined.params["axis"] not in (-1, len(a.shape) - 1):
            return False
        parts = joined.vars
        if len({p in self.recurrent for p in parts}) < 2 or w in self.recurrent:
            return False
        if any(p.dtype != call.output.dtype for p in parts):
            return False
        products: list[Var] = []
        start = 0
        for p in parts:
            stop = start + p.shape[-1]
            product = Var(call.output.shape, call.output.dtype, "product")
            products.append(self._call("matmul", (p, self._part(w, 0, start, stop)), {}, product))
            start = stop
        return self._add_up(products, call.output)

    def _part_of_a_product(self, call: Call) -> bool:
        """``(g @ W)[:, a:b]`` as ``g @ W[:, a:b]``, if the next state needs but some columns."""
        (x,) = call.inputs
        product = self.made.get(x) if isinstance(x, Var) else None
        if product is None or product.op != "matmul" or x not in self.next_state or self.wanted[x]:
            return False
        a, w = product.inputs
        users = self.users.get(x, [])
        columns = [_columns(user) for user in users]
        if not isinstance(a, Var) or not isinstance(w, Var) or len(w.shape) != 2 or None in columns:
            return False
        if all(user.output in self.next_state for user in users):
            return False
        columns = _columns(call)
        assert columns is not None
        self._call("matmul", (a, self._part(w, 1, *columns)), {}, call.output)
        return True

    # ----------------------------------------------------------------------------------- sums

    def _sum(self, call: Call) -> bool:
        """The terms of a sum, first those that are known before the loop."""
        if call.output not in self.recurrent or self._is_term(call.output):
            return False
        terms = self._terms(call)
        if terms is None or len(terms) < 3 or all(v in self.recurrent for v in terms):
            return False
        return self._add_up(terms, call.output)

    def _is_term(self, v: Var) -> bool:
        """Whether something is only there to be a term of another sum."""
        users = self.users.get(v, [])
        alone = len(users) == 1 and not self.wanted[v]
        return alone and users[0].op == "add" and users[0].output.dtype == v.dtype

    def _terms(self, call: Call) -> list[Var] | None:
        found: list[Var] = []
        for v in call.inputs:
            if not isinstance(v, Var) or v.dtype != call.output.dtype:
                return None
            inner = self.made.get(v)
            more = None
            if inner is not None and inner.op == "add" and self._is_term(v):
                more = self._terms(inner)
            found += [v] if more is None else more
        return found

    def _add_up(self, terms: list[Var], output: Var) -> bool:
        def order(v: Var) -> int:
            return 0 if v in self.constants else 2 if v in self.recurrent else 1

        terms = sorted(terms, key=order)
        total = terms[0]
        for term in terms[1:-1]:
            total = self._call(
                "add", (total, term), {}, Var(_joint(total, term), output.dtype, "sum")
            )
        self._call("add", (total, terms[-1]), {}, output)
        return True


def _columns(call: Call) -> tuple[int, int] | None:
    """Which columns of a matrix a ``getitem`` takes, if it takes all rows and is of a matrix."""
    if call.op != "getitem":
        return None
    shape, key = call.vars[0].shape, call.params["key"]
    if len(shape) != 2 or len(key) != 2 or not isinstance(key[1], slice):
        return None
    rows, columns = key
    if rows not in (slice(None), slice(0, shape[0], 1)) or columns.step not in (None, 1):
        return None
    start, stop, _ = columns.indices(shape[1])
    return (start, stop) if start < stop else None


def _joint(a: Var, b: Var) -> tuple[int, ...]:
    """The shape of a sum."""
    pairs = zip_longest(reversed(a.shape), reversed(b.shape), fillvalue=1)
    return tuple(m if n == 1 else n for m, n in pairs)[::-1]
