"""Back-propagation: the reverse walk over a tape. This file is the engine's backward half."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, cast

from tinygradrnn import op as engine
from tinygradrnn.errors import GradientError, ShapeError
from tinygradrnn.namespace import recorded, registry
from tinygradrnn.recipe import Share
from tinygradrnn.region import Region, Sweep
from tinygradrnn.tape import (
    Edge,
    Leaf,
    Node,
    Output,
    Trial,
    Value,
    enable_grad,
    execution_order,
    nbytes,
    no_grad,
    origin,
    recording,
)


def backpropagate(
    seeds: Sequence[tuple[Edge, Any]],
    wanted: Iterable[Edge] | None,
    *,
    retain: bool,
    create_graph: bool,
) -> dict[Edge, Any]:
    """Walk the tape behind `seeds` from its end and return the cotangent of each wanted place.

    This is the whole of reverse-mode differentiation. Nodes are visited in reverse execution order;
    by the time one is reached, every use of its output has added its share to the cotangent, and
    the node's rules turn that into shares for its inputs.

    Args:
        seeds: Places on the tape with their cotangents: arrays, or Tensors if `create_graph`.
        wanted: The places whose cotangents to return; None for all leaves.
        retain: Keep what the nodes saved, for another walk.
        create_graph: Run the rules on Tensors, so that the walk itself is recorded.
    """
    order = execution_order(edge for edge, _ in seeds)
    leaves: set[Edge] = {n for n in order if type(n) is Leaf}
    if any(isinstance(n, Trial) for n in order if type(n) is not Node):
        raise GradientError(
            "backward: a cell kept a tensor from an earlier step otherwise than in its state, and "
            "with checkpointing that step's tape is forgotten. Put it in the state, or compute it "
            "before the scan"
        )
    targets = leaves if wanted is None else set(wanted)
    held = _Held(targets, create_graph=create_graph)
    targets = targets | held.places
    ends = {origin(edge) for edge in targets}
    useful = None if targets >= leaves else _leading_to(ends, order)
    walk = _Walk(targets, retain=retain, create_graph=create_graph)
    with ExitStack() as stack:
        stack.enter_context(enable_grad() if create_graph else no_grad())
        for backend in {origin(edge).backend for edge, _ in seeds}:
            stack.enter_context(backend.quiet())
        stack.callback(setattr, recording, "step", recording.step)
        for edge, seed in seeds:
            walk.cotangents.add(edge, seed)
        walk.over(order, useful)
        held.complete(walk.found)
    return walk.found


class _Held:
    """States that stand still once their sequence has ended, among what is wanted.

    The state of a step is what the cell returned, except for sequences that have ended. So its
    gradient is that of the former, and for those that of :func:`~tinygradrnn.hold`'s result.

    Attributes:
        places: Where the former are.
    """

    def __init__(self, wanted: Iterable[Edge], *, create_graph: bool) -> None:
        self._states: dict[Edge, tuple[Edge, Any]] = {}
        for edge in wanted:
            if type(edge) is Node and edge.recipe.op is registry["hold"] and edge.inputs[0]:
                saved = edge.saved
                if saved is not None:
                    going = saved[edge.recipe.layout.index("going")]
                    going = engine.tensor_type(going, edge.backend) if create_graph else going
                    self._states[edge] = edge.inputs[0], going
        self._xp, self._wanted = recorded if create_graph else None, set(wanted)
        self.places: set[Edge] = {new for new, _ in self._states.values()}

    def complete(self, found: dict[Edge, Any]) -> None:
        """Put the parts of each state's gradient together."""
        for edge, (new, going) in self._states.items():
            xp = self._xp or origin(edge).backend.namespace
            stands = found.get(edge)
            stands = None if stands is None else xp.where(going, 0.0, stands)
            moves = found.get(new) if new in self._wanted else found.pop(new, None)
            parts = [part for part in (stands, moves) if part is not None]
            if parts:
                found[edge] = parts[0] if len(parts) == 1 else parts[0] + parts[1]


class _Walk:
    """A reverse walk under way."""

    def __init__(self, targets: set[Edge], *, retain: bool, create_graph: bool) -> None:
        self.targets, self.create_graph = targets, create_graph
        self.retain: bool = retain
        self.ends = {origin(edge) for edge in targets}
        self.cotangents = Cotangents(in_place=not create_graph)
        self.found: dict[Edge, Any] = {}

    def over(
        self,
        order: list[Node | Leaf],
        useful: set[Node | Leaf] | None,
        stop: Any = None,
    ) -> None:
        """Visit nodes from the last to the first.

        Args:
            order: The nodes.
            useful: Those that lead to something wanted; None for all.
            stop: The mark of a boundary at which the walk ends.
        """
        targets, ends, found, create_graph = self.targets, self.ends, self.found, self.create_graph
        cotangents, retain, watch = self.cotangents, self.retain, recording.watch
        held, owned, gathered = cotangents.held, cotangents.owned, cotangents.gathered
        for node in reversed(order):
            xp = recorded if create_graph else node.backend.namespace
            if node in gathered:
                cotangents.work_off(node)
            g = held.pop(node, None)
            if g is None:
                slots = cotangents.take_many(node, xp)
                if slots is None:
                    continue
                places = (Output(cast("Node", node), i) for i in range(len(slots)))
                pairs = list(zip(places, slots, strict=True))
                found.update((o, x) for o, x in pairs if o in targets)
                if watch is not None:
                    for place, x in pairs:
                        watch.arrived(place, x)
                if isinstance(node, Region):
                    self.through(node, slots, useful, stop)
                    continue
                g = _complete(slots, cast("Node", node), create_graph)
            else:
                if g.shape != node.shape or g.dtype is not node.dtype:
                    g = fit(xp, g, node)
                if watch is not None:
                    watch.arrived(node, g)
            if node in targets:
                found[node] = g
            if type(node) is not Node or (useful is not None and node not in useful):
                continue
            recipe = node.recipe
            if stop is not None and node.params.get("mark") is stop:
                continue
            saved = node.saved
            if saved is None:
                raise GradientError(
                    f"backward: the tape behind {recipe.op.name} was already freed by an earlier "
                    "backward. Pass retain_graph=True to that earlier call, compute the result "
                    "again, or cut a carried state's history with .detach()"
                )
            if create_graph:
                saved = recipe.lift(node, engine.tensor_type)
                recording.step = node.step
            inputs = node.inputs
            for way in recipe.rules if watch is None else watch.rules(node, recipe.rules):
                position, rule, contracts, _ = way
                if position is None:
                    for edge, share in zip(inputs, rule(xp, g, saved), strict=True):
                        if edge is not None:
                            cotangents.add(edge, share)
                    continue
                edge = inputs[position]
                assert edge is not None  # the recipe has rules only for inputs that need a gradient
                if useful is not None and origin(edge) not in useful and origin(edge) not in ends:
                    continue
                if contracts and not create_graph and cotangents.gather(edge, way, g, saved, xp):
                    continue
                share = rule(xp, g, saved)
                old = held.get(edge)
                if old is None:
                    held[edge] = share
                elif edge in owned and old.shape == share.shape and old.dtype == share.dtype:
                    old += share
                    held[edge] = old
                else:
                    cotangents.add(edge, share)
            if not retain:
                node.saved = None

    def through(
        self,
        region: Region,
        slots: list[Any],
        useful: set[Node | Leaf] | None,
        stop: Any,
    ) -> None:
        """Visit the nodes of a region, which the order of the nodes around it does not list.

        Their shares go to the same places as everyone's: a weight does not see where one region
        ends and the next begins.
        """
        inner = {i: o for i in range(len(slots)) if (o := Output(region, i)) in self.targets}
        if useful is not None and region not in useful and not inner:
            return
        if region.sweeps is not None and self.create_graph:
            raise GradientError(
                f"backward: {region.name} follows a plan that walks back from each loss on its "
                "own, and such a gradient is no function to differentiate again; use bptt.Full, "
                "Chunk or Random for gradients of gradients"
            )
        if not self.create_graph:
            direct = region.shares(slots, set(inner))
            watch = recording.watch
            if direct is not None and not (watch and watch.replays(region, slots, direct[0])):
                shares, gradients = direct
                self.found.update((inner[i], g) for i, g in gradients.items())
                for edge, share in zip(region.inputs, shares, strict=True):
                    if edge is not None and share is not None:
                        self.cotangents.add(edge, share)
                if not self.retain:
                    region.free()
                return
        since, edges = region.edges()
        # An output that is a trajectory asks for each of its states (see autodiff.grad).
        asked = {place: edge for i, place in inner.items() if (edge := edges[i]) is not None}
        inside = {p for edge in asked.values() for p in states_at(edge) or [edge] if p is not None}
        outer = self.targets, self.ends, self.retain
        held = _Held(inside, create_graph=self.create_graph)
        self.targets = self.targets | inside | held.places
        self.ends = self.ends | {origin(edge) for edge in inside | held.places}
        # Several sweeps pass the same nodes; and what ran again is on no other tape.
        self.retain = self.create_graph or not region.forgotten
        for place in asked:
            self.found.pop(place, None)  # so far only the direct share
        for sweep in region.sweeps or [Sweep(frozenset(range(len(slots))), None)]:
            starts: list[Edge] = []
            for i in sorted(sweep.outputs):
                if slots[i] is not None and (edge := edges[i]) is not None:
                    self.cotangents.add(edge, slots[i])
                    starts.append(edge)
            end = stop if sweep.stop is None else sweep.stop
            order = execution_order(starts, since, end)
            ways = useful
            if useful is not None:
                outside = {origin(edge) for edge in region.inputs if edge is not None}
                ways = _leading_to(self.ends, order, useful & outside)
            self.over(order, ways, end)
            self.cotangents.owned.difference_update(order)  # another sweep may come past
            held.complete(self.found)
            shares = {edge: self.found.pop(edge, None) for edge in inside}
            for place, edge in asked.items():
                along = states_at(edge)
                share = shares.get(edge)
                if along is not None:
                    rows = [None if p is None else shares.get(p) for p in along]
                    share = self._stacked(rows, region)
                if share is not None:
                    before = self.found.get(place)
                    self.found[place] = share if before is None else before + share
        self.targets, self.ends, self.retain = outer
        if not self.retain:
            region.free()

    def _stacked(self, rows: list[Any], region: Region) -> Any:
        """The gradients of states as one; zeros for those that nothing depends on."""
        like = next((row for row in rows if row is not None), None)
        if like is None:
            return None
        xp = recorded if self.create_graph else region.backend.namespace
        zeros = xp.zeros_like(like)
        return xp.stack([zeros if row is None else row for row in rows], axis=0)


def states_at(edge: Edge) -> Sequence[Edge | None] | None:
    """The places of the states that a trajectory stacks; None if `edge` is none."""
    if isinstance(edge, Node) and edge.recipe.op is registry["trajectory"]:
        return edge.inputs
    return None


class Cotangents:
    """What has been added up so far at each place on the tape.

    Two things are put off until a place is reached, because they cost more than the rest of a small
    step. A share that is larger than its place (of a bias that was broadcast over the batch) is
    summed to the place's shape once, not at every step. And the shares of a weight in products of
    many steps are computed as one product of long matrices, their rows put end to end.

    Args:
        in_place: Add into buffers that belong to the walk; False if the shares are Tensors.
    """

    BULK = 1 << 22
    """Bytes of cotangents to gather for one place before their products are worked off."""

    def __init__(self, *, in_place: bool) -> None:
        self.held: dict[Edge, Any] = {}
        self._in_place = in_place
        self.owned: set[Edge] = set()
        self.gathered: dict[Edge, list[tuple[Share, Any, Sequence[Any], Any]]] = {}
        self._room: dict[Edge, int] = {}
        self._joined: dict[tuple[int, ...], tuple[list[Any], Any]] = {}

    def take_many(self, node: Node | Leaf, xp: Any) -> list[Any] | None:
        """The complete cotangents of a node with several outputs; None if nothing was added."""
        if type(node) is Leaf or not node.recipe.op.many:
            return None
        # An Output is a pair: a plain one finds it, and is made faster.
        pop = cast("dict[tuple[Node, int], Any]", self.held).pop
        found: list[Any] = [pop((node, i), None) for i in range(len(node.shape))]
        cast("set[Any]", self.owned).difference_update((node, i) for i in range(len(found)))
        if all(g is None for g in found):
            return None
        if isinstance(node, Region):  # which reduces them where a flat tape would
            return found
        for i, (g, shape, dtype) in enumerate(zip(found, node.shape, node.dtype, strict=True)):
            if g is not None and (g.shape != shape or g.dtype is not dtype):
                found[i] = fit(xp, g, Output(node, i))
        return found

    def add(self, edge: Edge, share: Any) -> None:
        """Add a share to what its place holds."""
        held = self.held.get(edge)
        if held is not None:
            if share.shape != held.shape or share.dtype != held.dtype:
                xp = origin(edge).backend.namespace if self._in_place else recorded
                held, share = fit(xp, held, edge), fit(xp, share, edge)
                self.owned.discard(edge)
            if edge in self.owned:
                held += share  # the third share and all that follow go into one buffer
                share = held
            else:
                share = held + share  # the first may be shared with others: never written to
                if self._in_place:
                    self.owned.add(edge)
        self.held[edge] = share

    def gather(self, edge: Edge, way: Share, g: Any, saved: Sequence[Any], xp: Any) -> bool:
        """Put off a weight's share; False if it is none: a matrix, and no batch of them."""
        if type(edge) is Output or len(edge.shape) != 2 or len(g.shape) < 2:
            return False
        waiting = self.gathered.get(edge)
        if waiting is None:
            waiting = self.gathered[edge] = []
            self._room[edge] = self.BULK // (nbytes(g) or 1)
        waiting.append((way, g, saved, xp))
        if len(waiting) > self._room[edge]:
            self.work_off(edge)
        return True

    def work_off(self, node: Edge) -> None:
        """Compute the shares of `node` that were put off."""
        alike: dict[Any, list[tuple[Any, Sequence[Any]]]] = {}
        for way, g, saved, xp in self.gathered.pop(node):
            shapes = [getattr(saved[i], "shape", None) for i in way.needs]
            alike.setdefault((way, xp, g.shape, *shapes), []).append((g, saved))
        for (way, xp, *_), calls in alike.items():
            g, saved = calls[0]
            if len(calls) > 1:
                saved = list(saved)
                for i in way.needs:
                    if hasattr(saved[i], "shape"):
                        saved[i] = self._end_to_end([saved[i] for _, saved in calls], xp)
                g = self._end_to_end([g for g, _ in calls], xp)
            self.add(node, way.rule(xp, g, saved))

    def _end_to_end(self, arrays: list[Any], xp: Any) -> Any:
        """The rows of all arrays. Weights of products with a common input or output share this."""
        key = tuple(map(id, arrays))
        known = self._joined.pop(key, None) or (arrays, xp.concat(arrays, axis=0))
        self._joined[key] = known  # with the arrays, so that their ids stay theirs
        while len(self._joined) > 2:  # one product's two operands: more would keep the tape alive
            del self._joined[next(iter(self._joined))]
        return known[1]


def _leading_to(
    ends: set[Node | Leaf], order: list[Node | Leaf], known: Iterable[Node | Leaf] = ()
) -> set[Node | Leaf]:
    """The nodes with something wanted behind them: no other node's rules need to run."""
    useful: set[Node | Leaf] = set(known)
    for node in order:
        for edge in node.inputs:
            parent = edge.node if type(edge) is Output else edge
            if parent in ends or parent in useful:
                useful.add(node)
                break
    return useful


def _complete(slots: list[Any], node: Node, create_graph: bool) -> tuple[Any, ...]:
    """Zeros for the outputs of a node that nothing used."""
    xp = node.backend.xp

    def zeros(i: int) -> Any:
        device = next(s for s in slots if s is not None)
        device = (device.raw if isinstance(device, Value) else device).device
        array = xp.zeros(node.shape[i], dtype=node.dtype[i], device=device)
        return engine.tensor_type(array, node.backend) if create_graph else array

    return tuple(zeros(i) if s is None else s for i, s in enumerate(slots))


def fit(xp: Any, share: Any, edge: Edge) -> Any:
    """A share in the shape and type of its place."""
    if share.shape != edge.shape:
        share = unbroadcast(xp, share, edge.shape)
    return share if share.dtype == edge.dtype else xp.astype(share, edge.dtype)


def unbroadcast(xp: Any, share: Any, shape: tuple[int, ...]) -> Any:
    """Sum a cotangent over the axes along which its input was broadcast: the one place for it."""
    extra = len(share.shape) - len(shape)
    stretched = tuple(
        axis
        for axis, size in enumerate(share.shape)
        if axis < extra or (shape[axis - extra] == 1 and size != 1)
    )
    if stretched:
        share = xp.sum(share, axis=stretched, keepdims=True)
        share = xp.reshape(share, shape) if extra > 0 else share
    if tuple(share.shape) != tuple(shape):
        raise ShapeError(
            f"a gradient rule returned shape {tuple(share.shape)} for an input of shape {shape}"
        )
    return share
