"""The Jet: truncated Taylor series along lines, all orders, points and directions in one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from ntangent._base.check import check_order, under_transform
from ntangent._base.errors import ArgumentError, DtypeError, ShapeError
from ntangent.jet.algebra import Algebra
from ntangent.jet.arithmetic import Structure, common_shape, degree_of, product, row_count, tail_of
from ntangent.jet.dispatch import dispatch, expansion

# Facts about the value that code reads off a tensor before it works with it.
_FACTS = frozenset(
    {"is_nested", "is_cuda", "is_cpu", "is_mps", "is_sparse", "is_quantized", "is_meta", "is_leaf"}
    | {"layout", "requires_grad", "itemsize"}
)


class Jet:
    """The series f(x + t v) = sum_k c_k t^k of a value, truncated after t^order.

    ``data`` holds the coefficients c_k = (v·∇)^k f / k! in rows: row 0 is the value, which all
    directions share; row 1 + (k-1)·D + d is order k along direction d. Rows past the stored ones
    are zero, so x + t v itself needs two rows at any order. Only this class and the row functions
    of ``jet.arithmetic`` know this layout.

    A Jet passes through torch functions that have a Taylor rule (``torch.tanh(jet)``,
    ``linear(jet)``, ``jet * other``); any other raises :class:`MissingRule`.

    Args:
        data: rows, shape (1 + degree·D, *shape).
        order: order of truncation; degree <= order.
        directions: D, or None for a single direction without an axis of its own; or the algebra
            whose rows ``data`` holds (see ``jet.algebra``), with the methods about single
            coefficients left aside.
    """

    __slots__ = ("data", "directions", "order")
    __array_ufunc__ = None  # numpy scalars leave the arithmetic to us instead of iterating over a Jet

    def __init__(self, data: Tensor, order: int, directions: int | Algebra | None = None) -> None:
        self.data = data
        self.order = order
        self.directions = directions
        degree = degree_of(data, structure := directions or 1)
        if data.shape[0] != row_count(structure, degree) or degree > order:
            raise ShapeError(
                f"{data.shape[0]} rows cannot hold a series of order {order} in {structure} direction(s)",
                "the rows are the value and then `directions` rows for each stored order <= order",
                f"data of shape ({row_count(structure, order)}, *shape)",
            )

    # --- what it holds -------------------------------------------------------------------------

    @property
    def structure(self) -> Structure:
        """Number of directions, 1 when there is no direction axis; or the algebra."""
        return self.directions or 1

    @property
    def width(self) -> int:
        """Number of directions, 1 when there is no direction axis.

        Raises:
            ArgumentError: if the rows are not those of lines.
        """
        if isinstance(self.structure, Algebra):
            raise ArgumentError(
                "this jet is not a series along lines",
                "its rows are those of an algebra, and an order has no coefficient of its own there",
                "jet(f, x, order, direction=v)",
            )
        return self.structure

    @property
    def degree(self) -> int:
        """Highest stored order; the coefficients past it are zero."""
        return degree_of(self.data, self.structure)

    @property
    def value(self) -> Tensor:
        """The value itself (order 0), shape (*shape)."""
        return self.data[0]

    @property
    def shape(self) -> torch.Size:
        """Shape of the value."""
        return self.data.shape[1:]

    @property
    def ndim(self) -> int:
        """Number of axes of the value."""
        return self.data.ndim - 1

    @property
    def dtype(self) -> torch.dtype:
        """Type of the coefficients."""
        return self.data.dtype

    @property
    def device(self) -> torch.device:
        """Device of the coefficients."""
        return self.data.device

    def coefficient(self, k: int) -> Tensor:
        """Return the normalised coefficient of order k: the k-th derivative divided by k!.

        Returns:
            Shape (*shape), or (D, *shape) when the jet has a direction axis.

        Raises:
            ArgumentError: if k exceeds the order.
        """
        k = check_order(k, "k")
        if k > self.order:
            raise ArgumentError(
                f"this jet has coefficients up to order {self.order}, not {k}",
                "higher ones were not computed",
                f"jet(f, x, order={k}).coefficient({k})",
            )
        if k == 0:
            rows = self.data[:1].expand(self.width, *self.shape)
        elif k > self.degree:
            rows = self.data.new_zeros((self.width, *self.shape))
        else:
            rows = tail_of(self.data, self.width)[k - 1]
        return rows if self.directions is not None else rows[0]

    def derivative(self, k: int) -> Tensor:
        """Return the k-th derivative along each direction, k! times the coefficient.

        Raises:
            ArgumentError: if k exceeds the order, or if k! exceeds the range of the dtype (from
                k = 35 in float32, 171 in float64); the coefficient itself is always in range.
        """
        c = self.coefficient(k)
        return c if k <= 1 else c * self._factorial(k)

    def derivatives(self) -> Tensor:
        """Return the derivatives of all orders as one tensor, in one multiplication.

        Returns:
            Shape (order + 1, *shape), or (order + 1, D, *shape) when the jet has a direction axis.

        Raises:
            ArgumentError: as for :meth:`derivative`.
        """
        width, rows = self.width, padded(self, self.order)
        if self.directions is not None:
            shared = rows[:1].expand(width, *self.shape)
            rows = torch.cat([shared, rows[1:]]).view(self.order + 1, width, *self.shape)
        elif self.order <= 1:
            return rows
        # Found once, but not where tensors stand for others (compilers, transforms).
        plain = type(rows) is Tensor and not torch.compiler.is_compiling() and not under_transform(rows)
        factors = (_factorials if plain else _factorials.__wrapped__)(self.order, rows.dtype, rows.device)
        return rows * factors.view(-1, *[1] * (rows.ndim - 1))

    def _factorial(self, k: int) -> float:
        return _factorial(k, self.dtype)

    def truncate(self, order: int) -> Jet:
        """Return the series up to a lower order."""
        order = check_order(order)
        if order > self.order:
            raise ArgumentError(
                f"cannot truncate a series of order {self.order} to the higher order {order}",
                "the missing coefficients were not computed",
                f"jet(f, x, order={order})",
            )
        return Jet(self.data[: row_count(self.structure, min(order, self.degree))], order, self.directions)

    def differentiate(self, times: int = 1) -> Jet:
        """Return the series of the derivative along the line, of an order lower by ``times``.

        Raises:
            ArgumentError: if the jet has several directions (the derivative's value differs from
                one to the next, so there is no shared order 0), or too low an order.
        """
        times = check_order(times, "times")
        if times == 0:
            return self
        if self.width > 1:
            raise ArgumentError(
                f"a jet along {self.width} directions cannot be differentiated as one series",
                "its derivative has another value along each direction",
                "take one direction at a time: jet(f, x, order, direction=v)",
            )
        if times > self.order:
            raise ArgumentError(
                f"a series of order {self.order} has no derivative of order {times}",
                "each derivative uses up one coefficient",
                f"jet(f, x, order={times})",
            )
        kept = self.degree - times
        if kept < 0:
            return Jet(torch.zeros_like(self.data[:1]), self.order - times, self.directions)
        factors = [math.prod(range(k + 1, k + times + 1)) for k in range(kept + 1)]
        scale = self.data.new_tensor([float(f) for f in factors]).view(-1, *[1] * self.ndim)
        return Jet(self.data[times:] * scale, self.order - times, self.directions)

    def map_rows(self, f: Callable[[Tensor], Tensor]) -> Jet:
        """Apply a function that is linear in the value to every coefficient."""
        return Jet(f(self.data), self.order, self.directions)

    def detach(self) -> Jet:
        """Return the same series outside the graph of automatic differentiation.

        Inside a function that is being expanded a detached value is a constant, as it is for
        autograd: its series has order 0 only.
        """
        rows = self.data.detach()
        return Jet(rows[:1] if expansion() else rows, self.order, self.directions)

    def to(self, *args: Any, **kwargs: Any) -> Jet:
        """Move or cast the coefficients as ``torch.Tensor.to`` does."""
        return dispatch(torch.Tensor.to, (self, *args), kwargs)  # type: ignore[no-any-return]

    # --- arithmetic ------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Jet:
        return _operate(torch.add, self, other)

    def __sub__(self, other: Any) -> Jet:
        return _operate(torch.sub, self, other)

    def __rsub__(self, other: Any) -> Jet:
        return _operate(torch.add, -self, other)

    def __mul__(self, other: Any) -> Jet:
        return _operate(torch.mul, self, other)

    def __truediv__(self, other: Any) -> Jet:
        return _operate(torch.div, self, other)

    def __rtruediv__(self, other: Any) -> Jet:
        return _operate(torch.div, other, self)

    def __pow__(self, exponent: Any) -> Jet:
        return _operate(torch.pow, self, exponent)

    def __rpow__(self, base: Any) -> Jet:
        return _operate(torch.pow, base, self)

    def __matmul__(self, other: Any) -> Jet:
        return _operate(torch.matmul, self, other)

    def __rmatmul__(self, other: Any) -> Jet:
        return _operate(torch.matmul, other, self)

    __radd__, __rmul__ = __add__, __mul__
    # numpy scalars and arrays leave the operation to the methods above instead of looping over us.
    __array_ufunc__ = None

    def __neg__(self) -> Jet:
        return self.map_rows(torch.neg)

    def __pos__(self) -> Jet:
        return self

    def __abs__(self) -> Jet:
        return _operate(torch.abs, self)

    # Comparisons read the value, as a mask for torch.where does.

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return self.value.eq(_value(other))

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return self.value.ne(_value(other))

    def __lt__(self, other: Any) -> Tensor:
        return self.value.lt(_value(other))

    def __le__(self, other: Any) -> Tensor:
        return self.value.le(_value(other))

    def __gt__(self, other: Any) -> Tensor:
        return self.value.gt(_value(other))

    def __ge__(self, other: Any) -> Tensor:
        return self.value.ge(_value(other))

    __hash__ = object.__hash__

    def __getitem__(self, index: Any) -> Jet:
        return dispatch(torch.Tensor.__getitem__, (self, index), {})  # type: ignore[no-any-return]

    def __setitem__(self, index: Any, value: Any) -> None:
        dispatch(torch.Tensor.__setitem__, (self, index, value), {})

    def __iadd__(self, other: Any) -> Jet:
        return dispatch(torch.Tensor.__iadd__, (self, other), {})  # type: ignore[no-any-return]

    def __isub__(self, other: Any) -> Jet:
        return dispatch(torch.Tensor.__isub__, (self, other), {})  # type: ignore[no-any-return]

    def __imul__(self, other: Any) -> Jet:
        return dispatch(torch.Tensor.__imul__, (self, other), {})  # type: ignore[no-any-return]

    def __itruediv__(self, other: Any) -> Jet:
        return dispatch(torch.Tensor.__itruediv__, (self, other), {})  # type: ignore[no-any-return]

    def __ipow__(self, other: Any) -> Jet:
        return dispatch(torch.Tensor.__ipow__, (self, other), {})  # type: ignore[no-any-return]

    def __mod__(self, divisor: Any) -> Jet:
        return _operate(torch.remainder, self, divisor)

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        raise DtypeError(
            "a Jet has no truth value",
            "control flow on a value would make the series depend on the branch without saying so",
            "torch.where(x > 0, a, b) instead of `a if x > 0 else b`",
        )

    def __repr__(self) -> str:
        kind = f"order={self.order}, directions={self.directions}, dtype={self.dtype}"
        return f"Jet(shape={tuple(self.shape)}, {kind})"

    def __getattr__(self, name: str) -> Any:
        # jet.sin() is torch.Tensor.sin(jet); names that tensors lack are honest attribute errors.
        if name in _FACTS:
            return getattr(self.value, name)
        method = getattr(torch.Tensor, name, None)
        if name in ("T", "mT"):
            return dispatch(method.__get__, (self,), {})  # type: ignore[union-attr]
        if name.startswith("__") or not callable(method):
            raise AttributeError(f"a Jet has no attribute {name!r}")
        return lambda *args, **kwargs: dispatch(method, (self, *args), kwargs)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return dispatch(function, args, kwargs or {})


@cache
def _factorial(k: int, dtype: torch.dtype) -> float:
    if k > 170 or float(math.factorial(k)) > torch.finfo(dtype).max:
        raise ArgumentError(
            f"{k}! does not fit into {dtype}",
            "the raw derivative would overflow",
            f".coefficient({k})",
        )
    return float(math.factorial(k))


@lru_cache(maxsize=256)
def _factorials(order: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 0!, 1!, ..., order!; not an inference tensor, so that it serves everywhere."""
    with torch.inference_mode(False):
        return torch.tensor([_factorial(k, dtype) for k in range(order + 1)], dtype=dtype, device=device)


def _operate(function: Any, *args: Any) -> Jet:
    # Not function(*args): torch's own argument check refuses numpy arrays before we are asked.
    kinds = [type(arg) for arg in args if isinstance(arg, Jet)]
    kind = next((k for k in kinds if k is not Jet), Jet)
    return kind.__torch_function__(function, (), args, {})  # type: ignore[no-any-return]


def _value(other: Any) -> Any:
    return other.value if isinstance(other, Jet) else other


def lift(value: Any, like: Jet) -> Jet:
    """Return a constant as a series of degree 0 with the order, dtype and device of another."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return Jet(tensor[None], like.order, like.directions)


def padded(jet: Jet, degree: int) -> Tensor:
    """Return the rows of a jet, with zero rows up to ``degree`` (or cut to it)."""
    rows = row_count(jet.structure, degree)
    missing = rows - jet.data.shape[0]
    if missing <= 0:
        return jet.data[:rows] if missing else jet.data  # a slice costs a node of the graph
    return torch.cat([jet.data, jet.data.new_zeros((missing, *jet.shape))])


def common(jets: list[Jet]) -> tuple[int, int | Algebra | None]:
    """Return the order and the directions that several jets agree on.

    The order is the smallest: a sum or product is known no further. Directions must agree.
    """
    kinds = {jet.directions for jet in jets}
    if len(kinds) > 1:
        raise ShapeError(
            f"jets along different numbers of directions meet: {', '.join(str(k or 1) for k in kinds)}",
            "a product of series is taken direction by direction",
            "expand all inputs along the same directions in one call of jet(...)",
        )
    return min(jet.order for jet in jets), kinds.pop()


def broadcast_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """Expand the value axes of a row tensor to a common value shape, as broadcasting aligns them."""
    if rows.shape[1:] == shape:
        return rows
    missing = len(shape) - (rows.ndim - 1)
    return rows.reshape(rows.shape[0], *[1] * missing, *rows.shape[1:]).expand(rows.shape[0], *shape)


def multiply(a: Jet, b: Jet) -> Jet:
    """Return the truncated product of two series."""
    order, directions = common([a, b])
    shape = common_shape(a.shape, b.shape)
    a, b = a.truncate(order), b.truncate(order)
    if min(a.degree, b.degree) == 0:
        constant, series = (a, b) if a.degree == 0 else (b, a)
        return Jet(broadcast_rows(series.data, shape) * constant.value, order, directions)
    rows = [broadcast_rows(j.data, shape).contiguous() for j in (a, b)]
    return Jet(product(rows[0], rows[1], a.structure, min(order, a.degree + b.degree)), order, directions)


def compose(outer: Jet, inner: Jet) -> Jet:
    """Return the series of outer∘inner, by Horner's rule in truncated arithmetic.

    Args:
        outer: a series in one variable, expanded around the value of ``inner``.
        inner: the argument as a series.

    Cost: min(order) truncated products, O(order³).
    """
    if outer.width > 1:
        raise ArgumentError(
            "the outer series of a composition must have one direction", "it is a function of one variable"
        )
    order = min(outer.order, inner.order)
    outer = Jet(outer.data, outer.order)
    moving = Jet(torch.cat([torch.zeros_like(inner.data[:1]), inner.data[1:]]), inner.order, inner.directions)
    total = Jet(outer.coefficient(order)[None], order, inner.directions)
    for k in range(order - 1, -1, -1):
        total = multiply(total, moving)
        total = Jet(
            torch.cat([total.data[:1] + outer.coefficient(k), total.data[1:]]), order, inner.directions
        )
    return total
