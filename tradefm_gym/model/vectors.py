"""Sixteen float32 lanes as one value inside Numba kernels, each with its NumPy twin.

LLVM's loop vectoriser neither keeps a tile of accumulators in registers nor may it reorder float sums, and the fused
multiply-add that it picks depends on the CPU. Here both are spelled out: every operation is one correctly rounded IEEE
step a lane, so a kernel's result is the same bits whatever the tile it runs in, and on any CPU. A vector becomes one
AVX-512, two AVX2 or four NEON registers.

With `NUMBA_DISABLE_JIT=1` a vector is a NumPy array of 16 float32, and `multiply_add` rounds twice.
"""

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic, models, register_model

LANES = 16
DISABLE_JIT = bool(config.DISABLE_JIT)

# exp(x) = 2^n * p(r), r = x - n ln 2 with ln 2 in two parts (Cephes expf). The bounds lose nothing in float32 sums
# and keep results, also after a softmax, far from the subnormal numbers that slow a CPU a hundredfold.
EXP_LOW, EXP_HIGH = -60.0, 60.0
LOG2_E = 1.44269504088896341
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
EXP_POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INT_VECTOR = ir.VectorType(_INT, LANES)


class VectorType(types.Type):
    """Numba's type of a vector; it lives in locals only and never crosses into Python."""

    def __init__(self):
        super().__init__(name="float32x16")


vector_type = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _VECTOR)


def _constant(value: float) -> ir.Constant:
    # LLVM wants a float constant to be exactly representable
    return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)


def _call(builder, name: str, *arguments):
    function_type = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
    function = builder.module.declare_intrinsic(f"llvm.{name}.v{LANES}f32", fnty=function_type)
    return builder.call(function, arguments)


def _address(context, builder, array_type, array, index, pointee):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


def _check(array, index) -> bool:
    return (
        isinstance(array, types.Array)
        and array.dtype == types.float32
        and array.ndim == 1
        and array.layout == "C"
        and isinstance(index, types.Integer)
    )


@intrinsic
def _load(typing_context, array, index):
    if not _check(array, index):
        return None

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, array, arguments[0], arguments[1], _VECTOR)
        return builder.load(pointer, align=4)

    return vector_type(array, types.intp), generate


@intrinsic
def _store(typing_context, array, index, vector):
    if not _check(array, index):
        return None

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, array, arguments[0], arguments[1], _VECTOR)
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, vector_type), generate


@intrinsic
def _spread(typing_context, array, index):
    if not _check(array, index):
        return None

    def generate(context, builder, signature, arguments):
        scalar = builder.load(_address(context, builder, array, arguments[0], arguments[1], _FLOAT), align=4)
        return _splat(builder, scalar)

    return vector_type(array, types.intp), generate


@intrinsic
def _fill(typing_context, value):
    def generate(context, builder, signature, arguments):
        return _splat(builder, arguments[0])

    return vector_type(types.float32), generate


def _splat(builder, scalar):
    lane = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(lane, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_INT_VECTOR, [0] * LANES))


def _elementwise(emit, arity: int):
    """An intrinsic of `arity` vectors that returns a vector."""

    def generate(context, builder, signature, arguments):
        return emit(builder, *arguments)

    result = vector_type(*[vector_type] * arity)
    if arity == 1:
        return intrinsic(lambda typing_context, a: (result, generate))
    if arity == 2:
        return intrinsic(lambda typing_context, a, b: (result, generate))
    return intrinsic(lambda typing_context, a, b, c: (result, generate))


def _emit_exponential(builder, x):
    # fmuladd would leave the rounding to the back end; fma does not
    power = _call(builder, "rint", builder.fmul(x, _constant(LOG2_E)))
    rest = _call(builder, "fma", power, _constant(-LN2_HIGH), x)
    rest = _call(builder, "fma", power, _constant(-LN2_LOW), rest)
    value = _constant(EXP_POLYNOMIAL[0])
    for coefficient in EXP_POLYNOMIAL[1:]:
        value = _call(builder, "fma", value, rest, _constant(coefficient))
    value = builder.fadd(_call(builder, "fma", value, builder.fmul(rest, rest), rest), _constant(1.0))
    exponent = builder.add(builder.fptosi(power, _INT_VECTOR), ir.Constant(_INT_VECTOR, [127] * LANES))
    scale = builder.bitcast(builder.shl(exponent, ir.Constant(_INT_VECTOR, [23] * LANES)), _VECTOR)
    return builder.fmul(value, scale)


def _emit_bounded(builder, x):
    # compare and select: minnum and maxnum differ between CPUs on NaN
    x = builder.select(builder.fcmp_ordered("<", x, _constant(EXP_LOW)), _constant(EXP_LOW), x)
    return builder.select(builder.fcmp_ordered(">", x, _constant(EXP_HIGH)), _constant(EXP_HIGH), x)


def _emit_maximum(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


_add = _elementwise(lambda builder, a, b: builder.fadd(a, b), 2)
_subtract = _elementwise(lambda builder, a, b: builder.fsub(a, b), 2)
_multiply = _elementwise(lambda builder, a, b: builder.fmul(a, b), 2)
_divide = _elementwise(lambda builder, a, b: builder.fdiv(a, b), 2)
_maximum = _elementwise(_emit_maximum, 2)
_multiply_add = _elementwise(lambda builder, a, b, c: _call(builder, "fma", a, b, c), 3)
_exponential = _elementwise(lambda builder, a: _emit_exponential(builder, _emit_bounded(builder, a)), 1)


@intrinsic
def _sum_lanes(typing_context, vector):
    def generate(context, builder, signature, arguments):
        return _fold(builder, arguments[0], lambda a, b: builder.fadd(a, b))

    return types.float32(vector_type), generate


@intrinsic
def _maximum_lane(typing_context, vector):
    def generate(context, builder, signature, arguments):
        return _fold(builder, arguments[0], lambda a, b: _emit_maximum(builder, a, b))

    return types.float32(vector_type), generate


def _fold(builder, vector, combine):
    """Combines the upper half of the lanes with the lower until one is left: a fixed order."""
    half = LANES // 2
    while half:
        mask = [lane + half if lane < half else lane for lane in range(LANES)]
        upper = builder.shuffle_vector(vector, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_INT_VECTOR, mask))
        vector = combine(vector, upper)
        half //= 2
    return builder.extract_element(vector, ir.Constant(_INT, 0))


# The NumPy twins, for a debugger and for coverage.


def _numpy_load(array, index):
    return array[index : index + LANES].copy()


def _numpy_store(array, index, vector):
    array[index : index + LANES] = vector


def _numpy_spread(array, index):
    return np.full(LANES, array[index], np.float32)


def _numpy_fill(value):
    return np.full(LANES, value, np.float32)


def _numpy_exponential(vector):
    return np.exp(np.clip(vector, np.float32(EXP_LOW), np.float32(EXP_HIGH)))


def _numpy_multiply_add(a, b, c):
    return a * b + c


if DISABLE_JIT:
    load, store, spread, fill = _numpy_load, _numpy_store, _numpy_spread, _numpy_fill
    add, subtract, multiply, divide, maximum = np.add, np.subtract, np.multiply, np.divide, np.maximum
    multiply_add, exponential = _numpy_multiply_add, _numpy_exponential
    sum_lanes, maximum_lane = np.sum, np.max
else:
    load, store, spread, fill = _load, _store, _spread, _fill
    add, subtract, multiply, divide, maximum = _add, _subtract, _multiply, _divide, _maximum
    multiply_add, exponential = _multiply_add, _exponential
    sum_lanes, maximum_lane = _sum_lanes, _maximum_lane
