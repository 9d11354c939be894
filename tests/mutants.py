"""Break every gradient rule in turn, and see that the tests notice.

    python tests/mutants.py

A rule is broken by its sign, by a factor of 1.001, by a factor of 2, and by adding 0.001. For each
mutant the cases of its operation go through ``gradcheck`` until one fails. A mutant that passes
them all has survived: the exit code is then 1. A rule that gives nothing but zeros is the same
under a change of sign or factor; for those only the addition counts.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import tinygradrnn as tgr
from tinygradrnn.errors import GradcheckError
from tinygradrnn.testing.cases import Case, cases

CHANGES: dict[str, Callable[[Any], Any]] = {
    "sign": lambda r: -r,
    "factor 1.001": lambda r: r * 1.001,
    "factor 2": lambda r: r * 2,
    "plus 0.001": lambda r: r + 0.001,
}


def mutate(rule: Any, change: Any, element: int | None, seen: set[str]) -> Any:
    """The rule with its result (or one element of it) changed; notes if it was ever not zero."""

    @functools.wraps(rule)  # the engine reads from the rule's parameters what to save
    def mutant(xp: Any, g: Any, *needs: Any) -> Any:
        result = rule(xp, g, *needs)
        if element is None:
            seen.add("value" if bool(xp.any(result != 0)) else "zeros")
            return change(result)
        seen.add("value")
        many = list(result)
        if element < len(many) and many[element] is not None:
            many[element] = change(many[element])
        return many

    return mutant


def mutants(op: Any) -> Iterator[tuple[str, Callable[[Any, set[str]], None]]]:
    """What can be broken in an operation: its name, and a function that breaks it."""
    if op.together is not None:
        rule = op.together
        for i, name in enumerate(op.arrays):
            yield name, lambda c, s, i=i: op.vjp_together(mutate(rule, c, i, s))
        return
    for name, rule in op.rules.items():
        for element in (0, 1) if op.variadic else (None,):
            label = name if element is None else f"{name}[{element}]"
            yield label, lambda c, s, n=name, r=rule, e=element: op.vjp(**{n: mutate(r, c, e, s)})


def caught(table: list[Case]) -> bool:
    """Whether a case fails."""
    for case in table:
        try:
            tgr.testing.gradcheck(case.f, case.tensors())
        except GradcheckError:
            return True
    return False


def main() -> int:
    """Run all mutants and report."""
    table = [c for c in cases() if not c.kink and any(a.dtype.kind == "f" for a in c.arrays)]
    survived: list[str] = []
    count = same = 0
    registry: dict[str, Any] = dict(sorted(tgr.registry.items()))
    for name, op in registry.items():
        if not getattr(op, "rules", None):
            continue
        original, together = dict(op.rules), op.together
        mine = [c for c in table if c.op == name]
        for label, damage in mutants(op):
            for what, change in CHANGES.items():
                seen: set[str] = set()
                damage(change, seen)
                found = caught(mine)
                op.vjp(**original)
                op.together = together
                if not found and seen == {"zeros"} and not what.startswith("plus"):
                    same += 1
                    continue
                count += 1
                if not found:
                    survived.append(f"{name}: the rule of {label}, {what}")
    print(f"{count} mutants, {count - len(survived)} caught; {same} more that change nothing")
    for line in survived:
        print("  survived:", line)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
