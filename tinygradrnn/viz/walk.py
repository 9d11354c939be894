"""The tape as a list to go through, forward and backward, with every number on the way.

The walk back is the engine's (see ``backprop.py``) with nothing put off and nothing freed: the same
rules, called one node at a time, with each share kept to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from tinygradrnn.backprop import fit
from tinygradrnn.region import Region, Sweep
from tinygradrnn.tape import Edge, Leaf, Node, Output, execution_order, no_grad, origin
from tinygradrnn.watch import watch


class Opened(NamedTuple):
    """A region (a compiled or a forgetful stretch of the tape) with the nodes inside it."""

    region: Region
    inside: list[Node | Leaf | Opened]
    places: list[Edge | None]  # of its outputs


Entry = Node | Leaf | Opened


class Passed(NamedTuple):
    """What a node passes on to one of its inputs.

    Attributes:
        place: The input.
        share: The share; None for a leaf, since those of a large weight would fill the memory.
        seen: What is noted of the share.
        total: What is noted of the sum at this place so far.
    """

    place: Edge
    share: Any
    seen: Any
    total: Any


class Visit(NamedTuple):
    """A node on the walk back.

    Attributes:
        node: The node.
        seen: What is noted of the cotangents of its outputs; None for those that nothing used.
        shares: What it passes on.
    """

    node: Node
    seen: list[Any]
    shares: list[Passed]


def opened(edges: Sequence[Edge], since: int = -1) -> list[Entry]:
    """Every node behind `edges`, oldest first, with regions run again if they forgot theirs.

    Raises:
        GradientError: A region has been freed, or cannot run again as it ran before.
    """
    found: list[Entry] = []
    for node in execution_order(edges, since):
        if isinstance(node, Region):
            with watch():  # notes what a compiled loop does, which is nowhere else to be seen
                begin, places = node.edges()
            inside = opened([p for p in places if p is not None], begin)
            found.append(Opened(node, inside, places))
        else:
            found.append(node)
    return found


def flat(entries: Sequence[Entry]) -> Iterator[Node | Leaf]:
    """The nodes and leaves, in the order in which they ran."""
    for entry in entries:
        if isinstance(entry, Opened):
            yield from flat(entry.inside)
        else:
            yield entry


def aliases(entries: Sequence[Entry]) -> dict[Edge, Edge]:
    """For each output of a region the place inside that it stands for."""
    found: dict[Edge, Edge] = {}
    for entry in entries:
        if isinstance(entry, Opened):
            found |= aliases(entry.inside)
            for slot, place in enumerate(entry.places):
                if place is not None:
                    found[Output(entry.region, slot)] = found.get(place, place)
    return found


def walk_back(
    entries: Sequence[Entry], seeds: Sequence[tuple[Edge, Any]], note: Callable[[Any, Any], Any]
) -> tuple[list[Visit], dict[Edge, Any]]:
    """Go back through the tape, node by node.

    Args:
        entries: The tape, oldest first.
        seeds: Places with their cotangents.
        note: ``note(array, backend)``: what to keep of each array on the way.

    Returns:
        The visits in order, and the complete gradient of every place.
    """
    walk = _Walk(note)
    backends = {n.backend for n in flat(entries)}
    with ExitStack() as stack:
        stack.enter_context(no_grad())
        for backend in backends:
            stack.enter_context(backend.quiet())
        for edge, seed in seeds:
            walk.add(edge, seed)
        walk.over(entries, None)
    for edge, left in walk.held.items():
        walk.total[edge] = left
    return walk.visits, walk.total


class _Walk:
    def __init__(self, note: Callable[[Any, Any], Any]) -> None:
        self.note = note
        self.held: dict[Edge, Any] = {}
        self.total: dict[Edge, Any] = {}
        self.visits: list[Visit] = []

    def add(self, edge: Edge, share: Any) -> Any:
        xp = (edge.node if isinstance(edge, Output) else edge).backend.namespace
        share = fit(xp, share, edge)
        before = self.held.get(edge)
        self.held[edge] = share if before is None else before + share
        return self.held[edge]

    def take(self, edge: Edge) -> Any:
        """What has arrived at a place, which is complete now; in one of several walks, its part."""
        g = self.held.pop(edge, None)
        if g is not None:
            before = self.total.get(edge)
            self.total[edge] = g if before is None else before + g
        return g

    def over(self, entries: Sequence[Entry], stop: Any) -> None:
        for entry in reversed(entries):
            if isinstance(entry, Opened):
                self.through(entry, stop)
            elif isinstance(entry, Node):
                self.visit(entry, stop)

    def through(self, entry: Opened, stop: Any) -> None:
        region = entry.region
        slots = [self.take(Output(region, i)) for i in range(len(region.shape))]
        sweeps = region.sweeps or [Sweep(frozenset(range(len(slots))), None)]
        for sweep in sweeps:
            for i in sorted(sweep.outputs):
                place = entry.places[i]
                if slots[i] is not None and place is not None:
                    self.add(place, slots[i])
            self.over(entry.inside, stop if sweep.stop is None else sweep.stop)

    def visit(self, node: Node, stop: Any) -> None:
        many = node.recipe.op.many
        edges = [Output(node, i) for i in range(len(node.shape))] if many else [node]
        slots = [self.take(edge) for edge in edges]
        if all(g is None for g in slots):
            return
        xp, shares = node.backend.namespace, []
        if not (stop is not None and node.params.get("mark") is stop):
            g = slots[0]
            if many:
                like = next(x for x in slots if x is not None)
                g = tuple(
                    node.backend.xp.zeros(e.shape, dtype=e.dtype, device=like.device)
                    if x is None
                    else x
                    for e, x in zip(edges, slots, strict=True)
                )
            assert node.saved is not None
            for way in node.recipe.rules:
                made = way.rule(xp, g, node.saved)
                pairs = (
                    zip(node.inputs, made, strict=True)
                    if way.position is None
                    else [(node.inputs[way.position], made)]
                )
                for edge, share in pairs:
                    if edge is not None:
                        share = fit(xp, share, edge)
                        total = self.add(edge, share)
                        backend = origin(edge).backend
                        end = isinstance(edge, Leaf)
                        kept = None if end else share
                        # Sums are of interest where they are collected, at the weights.
                        seen = self.note(total, backend) if end else None
                        shares.append(Passed(edge, kept, self.note(share, backend), seen))
        self.visits.append(Visit(node, [self.note(g, node.backend) for g in slots], shares))
