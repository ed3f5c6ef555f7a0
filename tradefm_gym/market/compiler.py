"""How kernels are compiled, and two things that Numba does not let one say otherwise.

A row kernel that is called from a loop over markets says :func:`apart`: then the arrays that it takes are known not
to overlap, and a store through one does not spoil what was read through another. A kernel that is seldom needed
says :func:`aside`: it stays a function of its own, and what is needed often keeps the registers.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from tradefm_gym import threads as threads  # which sees to it how loops over threads wait

# Loops over markets, in the calling thread or over all.
SERIAL: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
PARALLEL: dict[str, Any] = {**SERIAL, "parallel": True}
# Row kernels allocate nothing, so they are compiled without reference counts.
KERNEL: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "_nrt": False,
    "forceinline": False,  # or it is inherited from the caller
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
# The same for rows of other rooms' loops, which tests call from Python as well.
ROW: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
INLINE: dict[str, Any] = {**KERNEL, "forceinline": True}


@intrinsic
def _apart(_):
    def generate(__, builder, ___, ____):
        for argument in builder.function.args[2:]:  # the first two are the places of the result and of an error
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")

    return types.void(), generate


@intrinsic
def _aside(_):
    def generate(__, builder, ___, ____):
        builder.function.attributes.add("noinline")

    return types.void(), generate


def _nothing() -> None:
    """Stands for both where the compiler is off."""


apart = _nothing if config.DISABLE_JIT else _apart
aside = _nothing if config.DISABLE_JIT else _aside


@intrinsic
def _fetch(_, array, m, i):
    def generate(context, builder, signature, arguments):
        source = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.add(builder.mul(arguments[1], builder.extract_value(source.shape, 1)), arguments[2])
        address = builder.gep(source.data, [place])
        words = [ir.Constant(ir.IntType(32), value) for value in (0, 3, 1)]  # to read, into every cache, data
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), *(word.type for word in words)])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [builder.bitcast(address, ir.IntType(8).as_pointer()), *words])

    return types.void(array, types.intp, types.intp), generate


# ``fetch(array, m, i)`` within a kernel: asks for the cache line of an item of a C-contiguous (N, .) array, without
# waiting for it.
fetch = (lambda array, m, i: None) if config.DISABLE_JIT else _fetch
