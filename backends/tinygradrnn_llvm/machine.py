"""The processor that code is made for, and the way from IR to an address that can be called."""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Machine:
    """A processor as far as the generated code depends on it.

    Attributes:
        triple, cpu, features: As LLVM names them.
        bits: The width of a vector register.
        registers: How many vector registers there are.
    """

    triple: str
    cpu: str
    features: str
    bits: int
    registers: int

    def lanes(self, itemsize: int) -> int:
        """How many elements of `itemsize` bytes a vector register holds."""
        return self.bits // (8 * itemsize)


def machine(cpu: str, features: dict[str, bool], triple: str) -> Machine:
    """The Machine for a processor with these features."""
    flags = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(features.items()))
    if not triple.startswith(("x86_64", "i686", "amd64")):
        return Machine(triple, cpu, flags, 128, 32)
    if features.get("avx512f"):
        return Machine(triple, cpu, flags, 512, 32)
    return Machine(triple, cpu, flags, 256 if features.get("avx2") else 128, 16)


@cache
def host() -> Machine:
    """This processor."""
    import llvmlite.binding as llvm

    features = dict(llvm.get_host_cpu_features())
    return machine(llvm.get_host_cpu_name(), features, llvm.get_process_triple())


class Code:
    """A compiled module; it lives as long as this object."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def address(self, name: str) -> int:
        """Where a function is."""
        return self._engine.get_function_address(name)

    def function(self, name: str, arguments: list[Any], result: Any = None) -> Any:
        """A function of it; other threads go on while it runs."""
        made = ctypes.CFUNCTYPE(result, *arguments)(self.address(name))
        made.code = self  # type: ignore[attr-defined]
        return made


_lock = threading.Lock()
_kept: OrderedDict[tuple[str, Machine], Code] = OrderedDict()


@cache
def _initialize() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def optimized(text: str, target: Machine) -> tuple[Any, Any]:
    """The parsed and optimised module, and the target machine it was optimised for."""
    import llvmlite.binding as llvm

    _initialize()
    processor = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, jit=True
    )
    module = llvm.parse_assembly(text)
    # The loops are vectors already and as large as they should be: what LLVM usually does would
    # take most of the time and gain nothing. (Value numbering neither; and it fails an assertion of
    # LLVM 22 on some loops, which ends the process.)
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(processor, options))
    return module, processor


def compiled(text: str, target: Machine) -> Code:
    """A module, compiled; the last ones are kept for equal modules."""
    import llvmlite.binding as llvm

    with _lock:
        code = _kept.get((text, target))
        if code is None:
            module, processor = optimized(text, target)
            engine = llvm.create_mcjit_compiler(module, processor)
            engine.finalize_object()
            code = _kept[text, target] = Code(engine)
            if len(_kept) > 256:
                _kept.popitem(last=False)
        else:
            _kept.move_to_end((text, target))
        return code


def address(x: Any) -> int:
    """Where an array begins."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(x))  # a fourth of the time
    except (TypeError, ValueError):  # read-only, or in pieces
        return x.ctypes.data
