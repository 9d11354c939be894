"""The compiled scan against PyTorch and JAX: forward and backward of recurrent cells, float32.

    pip install -e '.[bench]' && python benchmarks/scan.py --check && python benchmarks/scan.py

Sizes are (time, batch, input, hidden). Every contestant gets the same weights, inputs and cotangent
of the outputs, and ends with the gradients of inputs and weights; ``--check`` compares them. All
run on the same two processors, as JAX takes as many threads as it may use processors; a program
that others run there meanwhile makes threads wait for each other, so leave the machine alone.

- ``torch-nn``: ``nn.LSTM``, ``nn.GRU``, ``nn.RNN``.
- ``torch-loop``: the cell written in PyTorch's operations, step by step.
- ``jax``: the same cell in ``jit`` of ``lax.scan`` and its gradient.
- ``jax-hoisted``: the same with the inputs' product taken out of the loop by hand.
- ``eager``, ``numpy``, ``llvm``: ``tgr.scan`` eager, and compiled on the two backends.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before any library counts the processors
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-2:])

import numpy as np

import contest
import roofline

SIZES = [
    (64, 1, 64, 64),
    (64, 16, 64, 128),
    (64, 32, 128, 256),
    (128, 32, 256, 512),
    (37, 5, 30, 50),
    (200, 3, 17, 96),
]
GATES = {"lstm": 4, "gru": 3, "rnn": 1, "peephole": 4, "layernorm-gru": 3}
TORCH_NN = ("lstm", "gru", "rnn")
OURS = dict(zip(GATES, ("LSTM", "GRU", "RNN", "PeepholeLSTM", "LayerNormGRU"), strict=True))
Run = Callable[[], tuple[Any, list[Any]]]  # outputs; gradients of the inputs and of each weight


# ------------------------------------------------------------------------------ what to compute


@dataclass(frozen=True)
class Task:
    """A cell and a size, and the numbers that all contestants get."""

    cell: str
    size: contest.Size

    def numbers(self) -> tuple[dict[str, Any], Any, Any]:
        """The weights in PyTorch's layout by our cells' names, inputs, and outputs' cotangent."""
        time, batch, inputs, hidden = self.size
        rng = np.random.default_rng(0)

        def draw(*shape: int, scale: float = hidden**-0.5) -> Any:
            drawn = rng.standard_normal(shape, dtype=np.float32)
            drawn *= np.float32(scale)
            return drawn

        rows = GATES[self.cell] * hidden
        weights = {"weight_ih": draw(rows, inputs), "weight_hh": draw(rows, hidden)}
        if self.cell == "layernorm-gru":
            for name, width in (("ig", 2), ("hg", 2), ("in", 1), ("hn", 1)):
                weights[f"norm_{name}.weight"] = 1 + draw(width * hidden)
                weights[f"norm_{name}.bias"] = draw(width * hidden)
        else:
            weights |= {"bias_ih": draw(rows), "bias_hh": draw(rows)}
        if self.cell == "peephole":
            weights |= {f"peephole_{gate}": draw(hidden) for gate in "ifo"}
        return weights, draw(time, batch, inputs, scale=1), draw(time, batch, hidden, scale=1)

    @property
    def flops(self) -> float:
        """Operations in the matrix products: one forward, two backward for each weight."""
        time, batch, inputs, hidden = self.size
        return 3 * 2 * time * batch * (inputs + hidden) * GATES[self.cell] * hidden


# ---------------------------------------------------- cells in the operations `f` of PyTorch or JAX


def lstm_step(f: Any, p: Any, from_x: Any, state: Any) -> Any:
    h, c = state
    i, forget, g, o = f.split(from_x + f.linear(h, p["weight_hh"], p["bias_hh"]), 4)
    c = f.sigmoid(forget) * c + f.sigmoid(i) * f.tanh(g)
    return f.sigmoid(o) * f.tanh(c), c


def peephole_step(f: Any, p: Any, from_x: Any, state: Any) -> Any:
    h, c = state
    i, forget, g, o = f.split(from_x + f.linear(h, p["weight_hh"], p["bias_hh"]), 4)
    i = f.sigmoid(i + p["peephole_i"] * c)
    forget = f.sigmoid(forget + p["peephole_f"] * c)
    c = forget * c + i * f.tanh(g)
    return f.sigmoid(o + p["peephole_o"] * c) * f.tanh(c), c


def gru_step(f: Any, p: Any, from_x: Any, state: Any) -> Any:
    (h,) = state
    r_x, z_x, n_x = f.split(from_x, 3)
    r_h, z_h, n_h = f.split(f.linear(h, p["weight_hh"], p["bias_hh"]), 3)
    r, z = f.sigmoid(r_x + r_h), f.sigmoid(z_x + z_h)
    n = f.tanh(n_x + r * n_h)
    return (n + z * (h - n),)


def layernorm_gru_step(f: Any, p: Any, from_x: Any, state: Any) -> Any:
    def norm(x: Any, name: str) -> Any:
        return f.layer_norm(x, p[f"norm_{name}.weight"], p[f"norm_{name}.bias"])

    (h,) = state
    gates = 2 * h.shape[-1]
    from_h = f.linear(h, p["weight_hh"], None)
    r, z = f.split(f.sigmoid(norm(from_x[:, :gates], "ig") + norm(from_h[:, :gates], "hg")), 2)
    n = f.tanh(norm(from_x[:, gates:], "in") + r * norm(from_h[:, gates:], "hn"))
    return (n + z * (h - n),)


def rnn_step(f: Any, p: Any, from_x: Any, state: Any) -> Any:
    (h,) = state
    return (f.tanh(from_x + f.linear(h, p["weight_hh"], p["bias_hh"])),)


STEPS = {
    "lstm": lstm_step,
    "gru": gru_step,
    "rnn": rnn_step,
    "peephole": peephole_step,
    "layernorm-gru": layernorm_gru_step,
}


def first_state(task: Task, zeros: Callable[[tuple[int, int]], Any]) -> tuple[Any, ...]:
    """``(h, c)`` or ``(h,)``."""
    _, batch, _, hidden = task.size
    h = zeros((batch, hidden))
    return (h, h) if task.cell in ("lstm", "peephole") else (h,)


# ---------------------------------------------------------------------------------- contestants


def torch_nn(task: Task) -> Run:
    import torch

    torch.set_num_threads(contest.THREADS)
    weights, xs, g = task.numbers()
    layer = getattr(torch.nn, task.cell.upper())(*task.size[2:])
    layer.load_state_dict({f"{name}_l0": torch.from_numpy(w) for name, w in weights.items()})
    x, cotangent = torch.from_numpy(xs).requires_grad_(), torch.from_numpy(g)
    wanted = [x, *(getattr(layer, f"{name}_l0") for name in weights)]

    def run() -> Any:
        outputs, _ = layer(x)
        return outputs, torch.autograd.grad(outputs, wanted, cotangent)

    return run


def torch_loop(task: Task) -> Run:
    import torch
    from torch.nn import functional

    torch.set_num_threads(contest.THREADS)
    f = SimpleNamespace(
        linear=functional.linear,
        sigmoid=torch.sigmoid,
        tanh=torch.tanh,
        split=lambda x, parts: x.chunk(parts, dim=-1),
        layer_norm=lambda x, gain, bias: functional.layer_norm(x, gain.shape, gain, bias),
    )
    weights, xs, g = task.numbers()
    p = {name: torch.nn.Parameter(torch.from_numpy(w)) for name, w in weights.items()}
    x, cotangent = torch.from_numpy(xs).requires_grad_(), torch.from_numpy(g)
    step, start = STEPS[task.cell], first_state(task, torch.zeros)

    def run() -> Any:
        state, outputs = start, []
        for x_t in x.unbind():
            state = step(f, p, f.linear(x_t, p["weight_ih"], p.get("bias_ih")), state)
            outputs.append(state[0])
        stacked = torch.stack(outputs)
        return stacked, torch.autograd.grad(stacked, [x, *p.values()], cotangent)

    return run


def jax_scan(task: Task, hoisted: bool = False) -> Run:
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp

    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return x @ weight.T if bias is None else x @ weight.T + bias

    def layer_norm(x: Any, gain: Any, bias: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gain + bias

    f = SimpleNamespace(
        linear=linear,
        sigmoid=jax.nn.sigmoid,
        tanh=jnp.tanh,
        split=lambda x, parts: jnp.split(x, parts, axis=-1),
        layer_norm=layer_norm,
    )
    step, start = STEPS[task.cell], first_state(task, jnp.zeros)
    weights, xs, g = task.numbers()
    p, xs, g = jax.tree.map(jnp.asarray, (weights, xs, g))

    def forward(p: Any, xs: Any) -> Any:
        def from_input(x: Any) -> Any:
            return linear(x, p["weight_ih"], p.get("bias_ih"))

        def body(state: Any, x: Any) -> Any:
            state = step(f, p, x if hoisted else from_input(x), state)
            return state, state[0]

        return jax.lax.scan(body, start, from_input(xs) if hoisted else xs)[1]

    @jax.jit
    def both(p: Any, xs: Any, g: Any) -> Any:
        outputs, backward = jax.vjp(forward, p, xs)
        return outputs, backward(g)

    def run() -> Any:
        outputs, (of_weights, of_inputs) = jax.block_until_ready(both(p, xs, g))
        return outputs, [of_inputs, *(of_weights[name] for name in weights)]  # JAX sorts dicts

    return run


def tgr_scan(task: Task, mode: str, backend: str) -> Run:
    import tinygradrnn as tgr

    tgr.use_backend(backend)
    weights, xs, g = task.numbers()
    cell = getattr(tgr.nn, f"{OURS[task.cell]}Cell")(*task.size[2:])
    cell.load_state_dict(weights)
    x, cotangent = tgr.tensor(xs, requires_grad=True), tgr.tensor(g)
    parameters = dict(cell.named_parameters())
    wanted = [x, *(parameters[name] for name in weights)]
    state = cell.initial_state(task.size[1])

    def run() -> Any:
        outputs, _ = tgr.scan(cell, x, state, mode=mode)
        return outputs, tgr.grad(outputs, wanted, cotangent)

    return run


CONTESTANTS: dict[str, Callable[[Task], Run]] = {
    "torch-nn": torch_nn,
    "torch-loop": torch_loop,
    "jax": jax_scan,
    "jax-hoisted": lambda task: jax_scan(task, hoisted=True),
    "eager": lambda task: tgr_scan(task, "eager", "numpy"),
    "numpy": lambda task: tgr_scan(task, "compiled", "numpy"),
    "llvm": lambda task: tgr_scan(task, "compiled", "llvm"),
}


def contestants_for(cell: str, names: list[str]) -> list[str]:
    """Those of `names` that have the cell."""
    return [
        name for name in CONTESTANTS if name in names and (name != "torch-nn" or cell in TORCH_NN)
    ]


# ------------------------------------------------------------ the best large product of the machine


def torch_product(size: contest.Size, onednn: bool = False) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(contest.THREADS)
    a, b = torch.rand(size), torch.rand(size)
    if onednn:  # what nn.LSTM calls; for plain tensors PyTorch takes MKL, made for Intel's machines
        a, b = a.to_mkldnn(), b.to_mkldnn()
        return lambda: torch.nn.functional.linear(a, b)
    return lambda: torch.mm(a, b)


def numpy_product(size: contest.Size) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    a, b = (rng.random(size, dtype=np.float32) for _ in range(2))
    return lambda: a @ b


def numpy_row(size: contest.Size) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    row, matrix = rng.random(size[0], dtype=np.float32), rng.random(size, dtype=np.float32)
    return lambda: row @ matrix


Points = dict[tuple[str, str], list[tuple[int, float]]]
PRODUCTS: dict[str, Callable[[contest.Size], Callable[[], Any]]] = {
    "torch.mm": torch_product,
    "onednn": lambda size: torch_product(size, onednn=True),
    "numpy-matmul": numpy_product,
}
ROW = {"numpy-row": numpy_row}


def best_rate(rounds: int) -> float:
    """Operations in a second of a product of 2048 x 2048 matrices, by whoever is fastest."""
    table = contest.race(__file__, list(PRODUCTS), [(2048, 2048)], rounds)
    return 2 * 2048**3 / min(seconds for (seconds,) in table.values())


def reading_rate(rounds: int) -> float:
    """Bytes in a second at which a matrix of 1 MB is read in a product with one row."""
    ((seconds,),) = contest.race(__file__, list(ROW), [(512, 512)], rounds).values()
    return 4 * 512**2 / seconds


def show_rates(tasks: list[Task], table: dict[str, list[float]], best: float) -> Points:
    """How much of the machine's best rate the cells' products reach, all else being for free."""
    print(f"GFLOP/s of the matrix products, and their share of {best / 1e9:.0f} GFLOP/s")
    points: Points = {}
    for name, medians in table.items():
        rates = [task.flops / seconds for task, seconds in zip(tasks, medians, strict=True)]
        print(f"{name:11}  " + "".join(f"{r / 1e9:18.1f} {r / best:7.1%}" for r in rates))
        some = zip(tasks, rates, strict=True)
        points[name, tasks[0].cell] = [(task.size[1], rate) for task, rate in some]
    return points


# -------------------------------------------------------------- looked at in a process of their own


def results(name: str, task: Task, file: str) -> None:
    """Leave outputs and gradients in `file`."""
    outputs, gradients = CONTESTANTS[name](task)()
    arrays = [a.detach().numpy() if hasattr(a, "detach") else a for a in (outputs, *gradients)]
    np.savez(file, *arrays)


def peak_memory(name: str, task: Task) -> float:
    """Bytes by which one run raises the resident memory at its peak (Linux, glibc)."""

    def status(entry: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(entry))

    # Two steps load the libraries, start the threads, and compile what holds for any length; JAX
    # compiles for one length, and that counts.
    CONTESTANTS[name](replace(task, size=(2, *task.size[1:])))()
    run = CONTESTANTS[name](task)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and is still held would be used again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def call_times(name: str, task: Task) -> tuple[float, float, float]:
    """Seconds of the first call, of the second, and the median of the next seven."""
    run, seconds = CONTESTANTS[name](task), []
    for _ in range(9):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1], statistics.median(seconds[2:])


PROBES = {"results": results, "peak_memory": peak_memory, "call_times": call_times}
told: set[str] = set()


def probe(what: str, name: str, task: Task, *more: str) -> Any:
    """What a function of `PROBES` says in a fresh process; None if it fails, and why, once."""
    call = json.dumps([what, name, task.cell, task.size, *more])
    done = subprocess.run(
        [sys.executable, __file__, "--probe", call],
        capture_output=True,
        text=True,
        env=contest.environment(),
    )
    if not done.returncode:
        return json.loads(done.stdout.splitlines()[-1])
    reason = f"{name}: left out: {(done.stderr.strip() or 'it has died').splitlines()[-1]}"
    if reason not in told:
        told.add(reason)
        print(reason)
    return None


def check(tasks: list[Task], names: list[str]) -> None:
    """Compare everybody's outputs and gradients with the first one's, number by number; exit if
    they differ.
    """
    different: list[str] = []
    for task in tasks:
        print(f"{task.cell} {task.size}")
        g, reference = task.numbers()[2], None
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                file = str(Path(folder) / "results.npz")
                probe("results", name, task, file)
                if not Path(file).exists():
                    continue
                with np.load(file) as loaded:
                    arrays = [loaded[key].astype(np.float64) for key in loaded.files]
            reference = reference or arrays
            loss = (arrays[0] * g).sum()
            norm = sum((a * a).sum() for a in arrays[1:]) ** 0.5
            pairs = zip(arrays, reference, strict=True)
            apart = np.max([abs(a - b).max() / abs(b).max() for a, b in pairs])  # NaN, if any is
            line = f"  {name:11}  loss {loss:14.6f}  norm of gradients {norm:14.6f}"
            print(f"{line}  farthest apart {apart:.1e}")
            if not apart < 1e-4:
                different.append(f"{name} at {task.size}")
    if different:
        sys.exit(f"{tasks[0].cell}: something else is computed by {', '.join(different)}")


def show_probed(what: str, tasks: list[Task], names: list[str], text: Callable[[Any], str]) -> None:
    """A row for each contestant and a column for each size."""
    print(f"{'':11}  " + "".join(f"{task.size!s:>26}" for task in tasks))
    for name in names:
        found = [probe(what, name, task) for task in tasks]
        if any(f is not None for f in found):
            texts = ("-" if f is None else text(f) for f in found)
            print(f"{name:11}  " + "".join(f"{t:>26}" for t in texts))


def show_memory(tasks: list[Task], names: list[str]) -> None:
    print("resident memory at the peak of one forward and backward, above that before: MB")
    show_probed("peak_memory", tasks, names, lambda grown: f"{grown / 1e6:.1f}")


def show_first_calls(tasks: list[Task], names: list[str], rounds: int) -> None:
    print("the first call in a fresh process, after imports / the second / later ones: ms")
    show_probed(
        "call_times", tasks, names, lambda found: " / ".join(f"{s * 1e3:.1f}" for s in found)
    )
    print("one step of a tiny cell, which is all a call costs beside its arithmetic")
    contest.race(__file__, names, [(1, 1, 4, 4)], rounds, ["--cell", tasks[0].cell])


# ------------------------------------------------------------------------------------ command line


def main() -> None:
    parser = argparse.ArgumentParser(description="Time tgr.scan beside PyTorch and JAX.")
    parser.add_argument("--cell", nargs="+", choices=GATES, default=list(GATES))
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--size", nargs=4, type=int, action="append", metavar=("T", "B", "I", "H"))
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each (default 9)")
    parser.add_argument(
        "--roofline", action="store_true", help="rates, too, and the machine's best"
    )
    parser.add_argument("--picture", type=Path, help="draw the rates into this file (matplotlib)")
    instead = parser.add_argument_group("instead of the race")
    instead.add_argument("--check", action="store_true", help="do all compute the same?")
    instead.add_argument("--memory", action="store_true", help="peak resident memory")
    instead.add_argument("--first-call", action="store_true", help="what compiling takes")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve in PRODUCTS | ROW:
        contest.serve(args.serve, lambda name, size: (PRODUCTS | ROW)[name](size))
        return
    if args.serve:
        contest.serve(args.serve, lambda name, size: CONTESTANTS[name](Task(args.cell[0], size)))
        return
    if args.probe:
        what, name, cell, size, *more = json.loads(args.probe)
        print(json.dumps(PROBES[what](name, Task(cell, tuple(size)), *more)))
        return
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"this machine is or was just busy (load {load:.1f}): times may be longer")
    best = best_rate(args.rounds) if args.roofline or args.picture else None
    points: Points = {}
    for cell in args.cell:
        tasks = [Task(cell, tuple(size)) for size in args.size or SIZES]
        names = contestants_for(cell, args.only)
        print(f"\n{cell}")
        if args.check:
            check(tasks, names)
        if args.memory:
            show_memory(tasks, names)
        if args.first_call:
            show_first_calls(tasks, names, args.rounds)
        if not (args.check or args.memory or args.first_call):
            sizes = [task.size for task in tasks]
            table = contest.race(__file__, names, sizes, args.rounds, ["--cell", cell])
            if best:
                points |= show_rates(tasks, table, best)
    if args.picture and best:
        roofline.draw(args.picture, points, best, reading_rate(args.rounds))


if __name__ == "__main__":
    main()
