"""The command line: ``tinygradrnn train | sample | show | backends``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from tinygradrnn.backend import backends, use_backend
from tinygradrnn.errors import TinygradrnnError

STEPS = 1500


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 2 for bad input (with one line that says why), 130 after Ctrl-C."""
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a character gets its number
            stream.reconfigure(errors="backslashreplace")
    try:
        if getattr(args, "backend", None):
            use_backend(args.backend)
        return args.run(args)
    except BrokenPipeError:  # the reader of our output has gone, as ``| head`` does
        sys.stdout = None  # nothing is left to flush at exit
        return 0
    except (TinygradrnnError, OSError) as error:
        print(f"tinygradrnn: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"tinygradrnn: error: not enough memory: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tinygradrnn", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--backend", help="numpy, cupy, ... (default: $TINYGRADRNN_BACKEND or numpy)"
    )

    sub = commands.add_parser(
        "train", parents=[where], help="train a character-level language model on a text"
    )
    add = sub.add_argument
    add("--text", help="a file or folder (default: the Python standard library's own source)")
    add("--out", type=Path, help="the run's folder (default: a new one in runs/)")
    add("--resume", action="store_true", help="continue the run in --out, bit for bit")
    add("--steps", type=int, default=STEPS, help=f"updates in all (default {STEPS})")
    add("--cell", help="lstm (default), gru, rnn, or a class of yours: my_file.py:MyCell")
    for name, help in (
        ("hidden-size", "features of the cell's state"),
        ("embedding-size", "features of a character"),
        ("batch-size", "streams of text read side by side"),
        ("chunk", "time steps between two updates"),
        ("seed", "of the first weights and the samples"),
    ):
        add(f"--{name}", type=int, help=help)
    add("--learning-rate", type=float, help="Adam's")
    add("--clip", type=float, help="the largest norm of the gradient")
    sub.set_defaults(run=_train)

    sub = commands.add_parser("sample", parents=[where], help="write text with a trained model")
    add = sub.add_argument
    add("folder", type=Path, metavar="DIR", help="a run's folder")
    add("--prompt", default="", help="the beginning of the text")
    add("--length", type=int, default=500, help="characters to write (default 500)")
    add(
        "--temperature",
        type=float,
        default=0.7,
        help="0: most probable, 1: as learnt (default 0.7)",
    )
    add("--seed", type=int, help="for the same text again")
    sub.set_defaults(run=_sample)

    sub = commands.add_parser(
        "show", parents=[where], help="write a page on a training run: loss, samples, gradients"
    )
    add = sub.add_argument
    add("folder", type=Path, metavar="DIR", help="a run's folder, finished or under way")
    add("--out", type=Path, help="the page's file (default: report.html in the folder)")
    add("--watch", action="store_true", help="write it again every few seconds, until Ctrl-C")
    sub.set_defaults(run=_show)

    sub = commands.add_parser("backends", help="list the installed backends, usable or why not")
    sub.set_defaults(run=_backends)
    return parser


def _train(args: Any) -> int:
    from tinygradrnn.errors import DataError
    from tinygradrnn.run import Settings, saved_settings
    from tinygradrnn.train import train

    given = {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(Settings)
        if getattr(args, field.name) is not None
    }
    if args.text == "":
        raise DataError("--text is empty; expected a file or folder")
    if args.resume and args.out is None:
        raise DataError("--resume needs --out, the folder of the run to continue")
    if args.resume:
        saved = saved_settings(args.out)
        settings = dataclasses.replace(saved, **given)
        # A text may have moved; that it is the same one is checked by its content.
        changed = [k for k in given if k != "text" and getattr(settings, k) != getattr(saved, k)]
        if changed:
            was = ", ".join(f"{k} {getattr(saved, k)}" for k in changed)
            raise DataError(f"the run in {args.out} was made with {was}; leave that out to resume")
    else:
        settings = Settings(**given)
    folder = args.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    # The name we were called by, so that what we print can be pasted: .venv/bin/tinygradrnn
    called = sys.argv[0] if Path(sys.argv[0]).name == "tinygradrnn" else "tinygradrnn"
    return train(settings, folder, steps=args.steps, resume=args.resume, program=called)


def _sample(args: Any) -> int:
    from tinygradrnn.backend import current_backend
    from tinygradrnn.charmodel import write
    from tinygradrnn.errors import DataError
    from tinygradrnn.run import load_model

    if args.seed is not None and args.seed < 0:
        raise DataError(f"seed is {args.seed}; expected 0 or more")
    model, vocabulary = load_model(args.folder)
    text = write(
        model,
        vocabulary,
        current_backend().rng(args.seed),
        prompt=args.prompt,
        length=args.length,
        temperature=args.temperature,
    )
    print(args.prompt, end="")
    for character in text:
        print(character, end="", flush=True)
    print()
    return 0


def _show(args: Any) -> int:
    from tinygradrnn.viz.report import show

    pause = 5
    while True:
        path = show(args.folder, args.out, refresh=pause if args.watch else 0)
        print(f"{path.resolve().as_uri()}  written at {time.strftime('%H:%M:%S')}", flush=True)
        if not args.watch:
            return 0
        time.sleep(pause)


def _backends(args: Any) -> int:
    for info in backends():
        print(info)
    return 0


if __name__ == "__main__":
    sys.exit(main())
