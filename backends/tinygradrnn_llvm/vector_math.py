"""Transcendental functions as straight lines of LLVM's IR, for vectors and single values alike.

Nothing here branches: special cases are selected. Nothing calls a library, but sin and cos on a
processor that cannot multiply and add in one step. Greatest errors seen, in units in the last
place, of float32 (all numbers) and float64:

    exp 0.93, expm1 1.24, log 0.84, log1p 0.85, sigmoid 2.00, tanh 1.70, sin and cos 1.58

docs/explanation/llvm-accuracy.md says how they were measured. The schemes are the known ones: the
argument reduced in two or three steps (Cody and Waite 1980), the logarithms of fdlibm (Sun
Microsystems 1993), tanh as in Cephes (Moshier). The polynomials are our own: Remez's exchange at
200 bits, for the smallest greatest error relative to the function's value, then rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir


@dataclass(frozen=True)
class Format:
    """A floating-point format, and the numbers that depend on it.

    Attributes:
        scalar: LLVM's type.
        bits, mantissa, bias: Of the format; the mantissa without its leading one.
        ln2: ln 2 as a sum, the first of few bits.
        least, most: exp is 0 below and infinite above.
        exp: (e^r - 1 - r) / r² for |r| <= ln(2) / 2.
        tanh: (tanh x - x) / x³ as a polynomial of x², for |x| <= 0.55.
        log: (log((1 + s) / (1 - s)) - 2s) / s³ as a polynomial of s², for |s| <= 0.1716.
        sin: (sin r - r) / r³ as a polynomial of r², for |r| <= pi / 4.
        cos: (cos r - 1 + r²/2) / r⁴ likewise.
    """

    scalar: Any
    bits: int
    mantissa: int
    bias: int
    ln2: tuple[float, float]
    least: float
    most: float
    exp: tuple[float, ...]
    tanh: tuple[float, ...]
    log: tuple[float, ...]
    sin: tuple[float, ...]
    cos: tuple[float, ...]


SINGLE = Format(
    scalar=ir.FloatType(),
    bits=32,
    mantissa=23,
    bias=127,
    ln2=(0.693145751953125, 1.428606820309417e-06),
    least=-104.5,
    most=89.0,
    exp=(0.49999998155, 0.16666543623, 0.041667200024, 0.0083665204558, 0.0013882509811),
    tanh=(-0.33333317560, 0.13332586143, -0.053852310254, 0.021071680042, -0.0062742403686),
    log=(0.66666776415, 0.39977536951, 0.2987186298),
    sin=(-0.1666665494, 0.0083321779207, -0.00019517267167),
    cos=(0.041666645676, -0.0013887315932, 2.4433119533e-05),
)
DOUBLE = Format(
    scalar=ir.DoubleType(),
    bits=64,
    mantissa=52,
    bias=1023,
    ln2=(0.6931471803691238, 1.9082149292705877e-10),
    least=-746.0,
    most=710.0,
    exp=(
        0.5000000000000005179, 0.1666666666666658925, 0.04166666666657675487,
        0.008333333333389588569, 0.001388888893156526119, 0.0001984126971891172848,
        0.00002480150527305434578, 2.755740763348403545e-6, 2.762603824178261312e-7,
        2.505374574134099331e-8,
    ),
    tanh=(
        -0.3333333333333231326, 0.1333333333316870298, -0.05396825387607794914,
        0.02186948597478162448, -0.008863194503871439255, 0.003591719695925829687,
        -0.001453216749181147609, 0.000579136992872056649, -0.0002103023603722127399,
        0.00005102144979807232731,
    ),
    log=(
        0.6666666666666734458, 0.3999999999941432685, 0.2857142874247449915,
        0.2222219856347425057, 0.1818356486881029042, 0.1531403575361116816,
        0.1479610646580775899,
    ),
    sin=(
        -0.1666666666666663205, 0.008333333333322419052, -0.000198412698298123042,
        2.755731369353910018e-6, -2.505075837862739214e-8, 1.58968114554822041e-10,
    ),
    cos=(
        0.04166666666666659287, -0.001388888888887304794, 0.00002480158728884627306,
        -2.755731417768953054e-7, 2.087570061860395376e-9, -1.135852471305131856e-11,
    ),
)  # fmt: skip

# pi / 2 as a sum of three doubles, and how far they reach: beyond, sin and cos are not a number.
HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33)
FARTHEST = 2.0**40


class Value:
    """Lanes of a floating-point or integer type, with the operators of Python."""

    def __init__(self, builder: ir.IRBuilder, value: Any) -> None:
        self.builder, self.value = builder, value
        self.kind = value.type
        self.lanes = self.kind.count if isinstance(self.kind, ir.VectorType) else 0
        self.scalar = self.kind.element if self.lanes else self.kind
        self._prefix = "" if isinstance(self.scalar, ir.IntType) else "f"
        self.format = DOUBLE if self.scalar in (ir.DoubleType(), ir.IntType(64)) else SINGLE

    def constant(self, number: Any) -> Value:
        """A number in every lane."""
        return Value(self.builder, ir.Constant(self.kind, [number] * self.lanes or number))

    def _do(self, name: str, *others: Any) -> Value:
        values = [x if isinstance(x, Value) else self.constant(x) for x in (self, *others)]
        return Value(self.builder, getattr(self.builder, name)(*[x.value for x in values]))

    def __add__(self, other: Any) -> Value:
        return self._do(self._prefix + "add", other)

    def __sub__(self, other: Any) -> Value:
        return self._do(self._prefix + "sub", other)

    def __mul__(self, other: Any) -> Value:
        return self._do(self._prefix + "mul", other)

    def __rsub__(self, other: float) -> Value:
        return self.constant(other) - self

    def __truediv__(self, other: Any) -> Value:
        return self._do("fdiv", other)

    def __neg__(self) -> Value:
        return self._do("fneg")

    def __and__(self, other: Any) -> Value:
        return self._do("and_", other)

    def __or__(self, other: Any) -> Value:
        return self._do("or_", other)

    def __xor__(self, other: Any) -> Value:
        return self._do("xor", other)

    def __lshift__(self, count: int) -> Value:
        return self._do("shl", count)

    def __rshift__(self, count: int) -> Value:
        return self._do("ashr", count)

    def compare(self, sign: str, other: Any) -> Value:
        """Where it is so; nowhere that a lane is not a number."""
        other = other if isinstance(other, Value) else self.constant(other)
        name = "icmp_signed" if isinstance(self.scalar, ir.IntType) else "fcmp_ordered"
        compare = getattr(self.builder, name)
        return Value(self.builder, compare(sign, self.value, other.value))

    def where(self, yes: Any, no: Any) -> Value:
        """One of two, by this condition; at least one of them is a Value."""
        shape = yes if isinstance(yes, Value) else no
        yes, no = (x if isinstance(x, Value) else shape.constant(x) for x in (yes, no))
        return Value(self.builder, self.builder.select(self.value, yes.value, no.value))

    def either(self, a: Any, b: Any) -> tuple[Value, Value]:
        """Two values, and where this condition does not hold the other way round."""
        return self.where(a, b), self.where(b, a)

    def within(self, low: float, high: float) -> Value:
        """The nearest number between two; not a number stays so."""
        x = self.compare("<", low).where(low, self)
        return x.compare(">", high).where(high, x)

    def _to(self, conversion: str, scalar: Any) -> Value:
        kind = ir.VectorType(scalar, self.lanes) if self.lanes else scalar
        return Value(self.builder, getattr(self.builder, conversion)(self.value, kind))

    def integer(self) -> Value:
        """The same bits as an integer."""
        return self._to("bitcast", ir.IntType(self.format.bits))

    def floating(self) -> Value:
        """The same bits as a floating-point number."""
        return self._to("bitcast", self.format.scalar)

    def number(self) -> Value:
        """An integer's value as a floating-point number."""
        return self._to("sitofp", self.format.scalar)

    def double(self) -> Value:
        """In double precision."""
        return self._to("fpext", ir.DoubleType())

    def single(self) -> Value:
        """Rounded to single precision; of an integer the lower half."""
        if isinstance(self.scalar, ir.IntType):
            return self._to("trunc", ir.IntType(32))
        return self._to("fptrunc", ir.FloatType())

    def magnitude(self) -> Value:
        """Without its sign."""
        return (self.integer() & ((1 << (self.format.bits - 1)) - 1)).floating()

    def sign(self) -> Value:
        """The bit of its sign, as an integer."""
        return self.integer() & -(1 << (self.format.bits - 1))


def fma(a: Value, b: Any, c: Any, intrinsic: str = "fmuladd") -> Value:
    """``a * b + c``, with one rounding where the processor can."""
    lanes = f"v{a.lanes}" if a.lanes else ""
    name = f"llvm.{intrinsic}.{lanes}f{a.format.bits}"
    module = a.builder.module
    called = module.globals.get(name)
    if called is None:
        called = ir.Function(module, ir.FunctionType(a.kind, [a.kind] * 3), name)
    values = [x if isinstance(x, Value) else a.constant(x) for x in (a, b, c)]
    return Value(a.builder, a.builder.call(called, [x.value for x in values]))


def exact_fma(a: Value, b: Any, c: Any) -> Value:
    """``a * b + c`` with one rounding at any price: a processor that cannot calls a library."""
    return fma(a, b, c, "fma")


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """c[0] + c[1] x + c[2] x² + ..., by Horner's rule."""
    result = x.constant(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = fma(result, x, c)
    return result


def nearest(x: Value, factor: float) -> tuple[Value, Value]:
    """The whole number nearest to x * factor, and an integer of which the low bits are it."""
    # So large a number has no place for a fraction.
    large = 1.5 * 2.0**x.format.mantissa
    shifted = fma(x, factor, large)
    return shifted - large, shifted.integer()


def power_of_two(k: Value, plus: int = 0) -> Value:
    """2^(k + plus) for an integer of which only the low bits count, if it is a normal number."""
    f = k.format
    return ((k << f.mantissa) + ((f.bias + plus) << f.mantissa)).floating()


def exp(x: Value) -> Value:
    """e^r 2^k; in two factors, since 2^k may be no normal number."""
    f = x.format
    x = x.within(f.least, f.most)
    k, whole = nearest(x, 1 / math.log(2))
    r = fma(k, -f.ln2[1], fma(k, -f.ln2[0], x))
    y = polynomial(r, (1.0, 1.0, *f.exp))
    unused = f.bits - f.mantissa + 2
    whole = (whole << unused) >> unused
    half = whole >> 1
    return y * power_of_two(half) * power_of_two(whole - half)


def expm1(x: Value) -> Value:
    """2 (2^(k-1) (e^r - 1) + (2^(k-1) - 1/2)): the halves keep 2^k finite."""
    f = x.format
    near = x.within(-2.0 * f.mantissa, f.most)
    k, whole = nearest(near, 1 / math.log(2))
    # r in two parts: it cancels with the 1 where k = 1, and would bring its rounding.
    first, second = fma(k, -f.ln2[0], near), k * -f.ln2[1]
    r = first + second
    small = fma(r * r, polynomial(r, f.exp), second)
    scale = power_of_two(whole, -1)
    y = fma(scale, small, fma(scale, first, scale - 0.5))
    return x.magnitude().compare("<", 2.0**-f.mantissa / 4).where(x, y + y)


def sigmoid(x: Value) -> Value:
    """2^k / (2^k + e^-r); both times a power of two, so that only the quotient can be denormal."""
    f = x.format
    large = f.bias // 2
    x = x.within(f.least, 1.0 * f.mantissa)
    k, whole = nearest(x, 1 / math.log(2))
    r = fma(k, f.ln2[1], fma(k, f.ln2[0], -x))
    y = fma(r * r, polynomial(r, f.exp), r)
    scale, one = power_of_two(whole, large), 2.0**large
    # The smaller one is added first: where 2^k is half a unit beside 1, it would be lost.
    low, high = scale.compare("<", one).either(scale, one)
    return scale / (fma(y, one, low) + high)


def tanh(x: Value) -> Value:
    """1 - 2 / (e^2|x| + 1) with the sign put back, and for |x| < 0.55 a polynomial."""
    f = x.format
    a = x.magnitude()
    z = a * a
    # Not z * a first: that is soon denormal, which is slow.
    near = fma(a * polynomial(z, f.tanh), z, a)
    most = 0.5 * f.mantissa
    # Not `within`: its comparison with a lower limit would be for nothing.
    a = a.compare(">", most).where(most, a)
    k, whole = nearest(a, 2 / math.log(2))
    # One step is enough: where k is large, its error is nothing beside 1.
    r = fma(k, -math.log(2), a + a)
    double = power_of_two(0 - whole, 1)
    far = 1.0 - double / fma(double, 0.5, polynomial(r, (1.0, 1.0, *f.exp)))
    y = a.compare("<", 0.55).where(near, far)
    return (y.integer() | x.sign()).floating()


def _logarithm(x: Value, k: Value, correction: Value | None) -> Value:
    """The logarithm of x 2^k plus a correction, for a normal number x; fdlibm's e_log.c."""
    f = x.format
    low = 0x3F3504F3 if f is SINGLE else 0x3FE6A09E667F3BCD  # sqrt(1/2)
    bits = x.integer() - low
    k = k + (bits >> f.mantissa)
    m = (bits & ((1 << f.mantissa) - 1)) + low
    r = m.floating() - 1.0
    s = r / (r + 2.0)
    z = s * s
    half = r * r * 0.5
    k = k.number()
    small = k * f.ln2[1] if correction is None else fma(k, f.ln2[1], correction)
    rest = fma(s, fma(z, polynomial(z, f.log), half), small)
    return fma(k, f.ln2[0], r - (half - rest))


def _ends(x: Value, y: Value, zero: float) -> Value:
    """Puts in y what a logarithm is where x is `zero` or less, infinite or not a number."""
    y = x.compare("==", zero).where(-math.inf, y)
    y = x.compare("<", zero).where(math.nan, y)
    return x.compare("<", math.inf).where(y, x)


def log(x: Value) -> Value:
    """As fdlibm; denormal numbers are scaled before."""
    f = x.format
    tiny = x.compare("<", 2.0 ** (1 - f.bias))
    normal = tiny.where(x * 2.0**f.mantissa, x)
    k = tiny.where(x.integer().constant(-f.mantissa), 0)
    return _ends(x, _logarithm(normal, k, None), 0.0)


def log1p(x: Value) -> Value:
    """``log(u) + c / u``, where u + c = 1 + x exactly; fdlibm's s_log1p.c."""
    f = x.format
    u = x + 1.0
    c = x.compare(">", 1.0).where(1.0 - (u - x), x - (u - 1.0))
    y = _ends(x, _logarithm(u, x.integer().constant(0), c / u), -1.0)
    return x.magnitude().compare("<", 2.0**-f.mantissa / 4).where(x, y)


def _quarters(x: Value) -> tuple[Value, Value, Value | None]:
    """The quarter of a circle that |x| is nearest to, the angle from there, and its lost bits."""
    a = x.magnitude()
    # Beyond, no number: k would have too few bits. Loud is better than wrong.
    a = a.compare("<=", FARTHEST).where(a, math.nan)
    if x.format is SINGLE:
        wide = a.double()
        k, whole = nearest(wide, 2 / math.pi)
        r = exact_fma(k, -HALF_PI[1], exact_fma(k, -HALF_PI[0], wide))
        return whole.single(), r.single(), None
    k, whole = nearest(a, 2 / math.pi)
    first = exact_fma(k, -HALF_PI[0], a)
    product = k * HALF_PI[1]
    lost = exact_fma(k, HALF_PI[1], -product)
    second = first - product
    # Knuth's exact sum: either may be the larger.
    back = second - first
    rest = (first - (second - back)) - (product + back) - lost
    rest = fma(k, -HALF_PI[2], rest)
    r = second + rest
    return whole, r, (second - r) + rest


def _sine(x: Value, shift: int) -> Value:
    """The sine of |x| and `shift` quarters."""
    f = x.format
    k, r, low = _quarters(x)
    z = r * r
    half = z * 0.5
    one = 1.0 - half
    cubic, quartic = polynomial(z, f.sin), polynomial(z, f.cos)
    if low is None:
        sine, cosine = fma(r * z, cubic, r), fma(z * z, quartic, one)
    else:
        sine = r + fma(r * z, cubic, low)
        cosine = one + fma(z * z, quartic, ((1.0 - one) - half) - r * low)
    k = k + shift
    y = (k & 1).compare("==", 0).where(sine, cosine)
    return (y.integer() ^ ((k & 2) << (f.bits - 2))).floating()


def sin(x: Value) -> Value:
    """Of the reduced argument sine or cosine; not a number beyond 2^40."""
    return (_sine(x, 0).integer() ^ x.sign()).floating()


def cos(x: Value) -> Value:
    """As sin, a quarter later."""
    return _sine(x, 1)


_EMITTERS: dict[str, Callable[[Value], Value]] = {
    f.__name__: f for f in (exp, expm1, log, log1p, sigmoid, sin, cos, tanh)
}
FUNCTIONS: tuple[str, ...] = tuple(_EMITTERS)


def emit(name: str, builder: ir.IRBuilder, *values: Any) -> Any:
    """Instructions for one of FUNCTIONS, at the builder's place.

    Args:
        name: Which function.
        builder: What writes them.
        values: Its argument: a float, a double, or a vector of them.

    Returns:
        A value of the argument's type.
    """
    return _EMITTERS[name](Value(builder, *values)).value
