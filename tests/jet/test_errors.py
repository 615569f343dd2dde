"""Bad input: the type of the error, what it says, and that the fix it gives works."""

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import ntangent as nt
from ntangent._base.errors import (
    ArgumentError,
    BackendError,
    DtypeError,
    MissingRule,
    NonFiniteError,
    NtangentError,
    ShapeError,
    UnknownNameError,
)
from ntangent.jet import Jet

# Under pytest the annotations are checked before our own checks run; users meet the latter.
jet = inspect.unwrap(nt.jet)
F64 = torch.float64
X = torch.linspace(-1, 1, 6, dtype=F64).reshape(3, 2)
LINE = X[:, :1]
NET = nt.MLP(2, 1, width=4, depth=1, dtype=F64, generator=0)


def caught(
    kind: type[NtangentError], *fragments: str, f: Any = NET, x: Any = X, **arguments: Any
) -> NtangentError:
    """Return the error of a bad call, after checking its type and what it says."""
    arguments = {"order": 2, "direction": 0} | arguments
    with pytest.raises(kind) as info:
        jet(f, x, **arguments)
    for fragment in fragments:
        assert fragment in str(info.value)
    if info.value.fix:
        assert f"fix: {info.value.fix}" in str(info.value)
    return info.value


@pytest.mark.parametrize(
    ("order", "kind", "fragment"),
    [
        (-2, ArgumentError, "non-negative integer, got -2"),
        (1.5, DtypeError, "non-negative integer, got 1.5"),
        (2.0, DtypeError, "got 2.0"),
        (True, DtypeError, "got True"),
        ("3", DtypeError, "got '3'"),
        (None, DtypeError, "got None"),
    ],
)
def test_order(order: Any, kind: type[NtangentError], fragment: str) -> None:
    error = caught(kind, fragment, order=order)
    arguments: dict[str, int] = eval(f"dict({error.fix})")
    assert jet(NET, X, direction=0, **arguments).order == arguments["order"]


def test_integers_of_other_kinds_are_orders() -> None:
    assert jet(NET, X, torch.tensor(3), 0).order == 3


@pytest.mark.parametrize("shape", [(6,), (), (3, 2, 1)])
def test_shape_of_points(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, dtype=F64)
    error = caught(ShapeError, "x must have shape (points, dimension)", str(shape), f=torch.sin, x=x)
    scope = {"x": x, "torch": torch}
    exec(error.fix, scope)
    assert jet(torch.sin, scope["x"], 1, 0).order == 1


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.bool, torch.complex128])
def test_dtype_of_points(dtype: torch.dtype) -> None:
    x = torch.ones(3, 1, dtype=dtype)
    error = caught(DtypeError, f"x has dtype {dtype}", "float32 or float64", f=torch.sin, x=x, direction=None)
    if dtype.is_complex:
        return
    scope = {"x": x, "torch": torch}
    exec(error.fix, scope)
    assert jet(torch.sin, scope["x"], 1).dtype == F64


def test_points_that_are_no_tensor() -> None:
    error = caught(DtypeError, "torch.Tensor, got list", x=[[1.0, 2.0]])
    assert jet(NET, eval(error.fix, {"torch": torch, "x": X.tolist()}).double(), 1, 0).order == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_points_that_are_not_finite(value: float) -> None:
    x = X.clone()
    x[1, 0] = value
    error = caught(NonFiniteError, "x contains 1 non-finite value(s)", x=x)
    scope = {"x": x, "torch": torch}
    exec(error.fix, scope)
    assert jet(NET, scope["x"], 1, 0).shape == (2, 1)


def test_missing_direction() -> None:
    error = caught(ShapeError, "a direction is needed in 2 dimensions", direction=None)
    scope = {"jet": jet, "f": NET, "x": X, "order": 3}
    assert eval(error.fix.partition("#")[0], scope).order == 3


@pytest.mark.parametrize("index", [2, -3])
def test_direction_index_out_of_range(index: int) -> None:
    error = caught(ShapeError, f"no coordinate {index} in 2 dimension(s)", direction=index)
    arguments = eval(f"dict({error.fix.partition('#')[0]})")
    assert jet(NET, X, 1, **arguments).order == 1


@pytest.mark.parametrize("shape", [(3,), (1, 3), (0, 2), (1, 1, 2), ()])
def test_direction_of_wrong_shape(shape: tuple[int, ...]) -> None:
    direction = torch.ones(shape, dtype=F64)
    caught(ShapeError, f"direction has shape {shape}", "2 coordinate(s)", "shape (D, 2)", direction=direction)


def test_direction_of_wrong_dtype() -> None:
    direction = torch.tensor([1, 0])
    error = caught(DtypeError, "dtype torch.int64, the points torch.float64", direction=direction)
    assert jet(NET, X, 1, eval(error.fix, {"direction": direction, "torch": torch})).order == 1


@pytest.mark.parametrize("direction", [True, 1.0, "x", [1.0, 0.0]])
def test_direction_of_wrong_type(direction: Any) -> None:
    error = caught(DtypeError, "None, an int or a tensor", repr(direction), direction=direction)
    arguments = eval(f"dict({error.fix})", {"torch": torch})
    assert jet(NET, X, 1, arguments["direction"].double()).order == 1


def test_direction_that_is_not_finite() -> None:
    caught(NonFiniteError, "direction contains 1", direction=torch.tensor([float("nan"), 0.0], dtype=F64))


@pytest.mark.parametrize("low_net", [True, False])
def test_network_and_points_of_different_precision(low_net: bool) -> None:
    net = nt.MLP(2, 1, dtype=torch.float32 if low_net else F64, generator=0)
    x = X if low_net else X.float()
    error = caught(DtypeError, "the network's parameters are", "float32", "float64", f=net, x=x)
    fixed = eval(error.fix, {"net": net, "x": x, "torch": torch})
    net, x = (fixed, x) if low_net else (net, fixed)
    assert jet(net, x, 1, 0).dtype == F64


def test_unknown_backend_suggests_a_name() -> None:
    error = caught(UnknownNameError, "unknown backend 'eagre'", "did you mean eager?", backend="eagre")
    assert isinstance(error, ValueError)
    caught(UnknownNameError, "autograd", "eager", backend="zzz")


def test_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="directions"):
        jet(NET, X, 2, directions=0)


def test_missing_rule_names_the_operation_the_place_and_a_fix_that_works() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.conj_physical(x))  # the place

    error = caught(MissingRule, "no Taylor rule for torch.conj_physical (called from test_errors.py:", f=f)
    place = int(str(error).partition("test_errors.py:")[2].partition(")")[0])
    assert "# the place" in inspect.getsource(inspect.getmodule(f)).splitlines()[place - 1]
    assert isinstance(error, NotImplementedError)
    register = error.fix.partition("linear: ")[2].partition(";")[0]
    try:
        exec(register, {"ntangent": nt, "torch": torch})
        got = jet(f, X, 2, 0).coefficient(2)
    finally:
        nt.extend.rules().pop(torch.conj_physical, None)
    expected = jet(lambda x: torch.tanh(x), X, 2, 0).coefficient(2)
    torch.testing.assert_close(got, expected)
    other = error.fix.partition("autograd: ")[2].replace("...", "torch.special.i0, x, 2")
    assert eval(other, {"jet": jet, "torch": torch, "x": LINE}).order == 2


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (torch.special.ndtr, "torch.special.ndtr"),
        (torch.linalg.det, "torch.linalg.det"),
        (F.feature_alpha_dropout, "torch.nn.functional.feature_alpha_dropout"),
        (lambda x: x.digamma(), "torch.Tensor.digamma"),
        (torch.float_power, "torch.float_power"),
    ],
)
def test_missing_rule_names_are_importable(f: Any, name: str) -> None:
    arguments = (2,) if f is torch.float_power else ()
    error = caught(MissingRule, f"no Taylor rule for {name} (", f=lambda x: f(x, *arguments))
    assert eval(name, {"torch": torch}) is not None
    assert f"extend.linear({name})" in error.fix


def test_methods_of_modules_are_located_in_user_code() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.local_response_norm(x, 2)  # inside the model

    error = caught(MissingRule, "local_response_norm", "in model, a Model)", f=Model())
    place = int(str(error).partition("test_errors.py:")[2].partition(",")[0])
    assert "# inside the model" in inspect.getsource(inspect.getmodule(Model)).splitlines()[place - 1]


def test_rules_refuse_what_they_cannot_do() -> None:
    caught(MissingRule, "rounding_mode='floor'", f=lambda x: torch.div(x, 2, rounding_mode="floor"))
    caught(MissingRule, "index_select got a series where its", f=lambda x: torch.index_select(x, 0, x))
    caught(MissingRule, "torch.where(series", f=lambda x: torch.where(x, x, x))
    caught(ArgumentError, "no approximation 'erf'", f=lambda x: F.gelu(x, approximate="erf"))
    with pytest.raises(TypeError):
        jet(lambda x: F.softplus(x, nonsense=3), X, 1, 0)
    caught(ArgumentError, "cannot write a series to out=", f=lambda x: torch.tanh(x, out=torch.empty(3, 2)))


def test_dropout_in_training_mode() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 4, dtype=F64), torch.nn.Dropout(0.5))
    error = caught(MissingRule, "dropout in training mode", f=net)
    exec(error.fix, {"net": net})
    assert torch.equal(jet(net, X, 1, 0).value, net(X))


def test_faa_di_bruno_serves_dense_networks_only() -> None:
    error = caught(BackendError, "dense networks only", f=lambda x: NET(x) + 1, backend="faa-di-bruno")
    fixed = error.fix.replace("...", "f, x, 2, 0")
    assert eval(fixed, {"jet": jet, "f": lambda x: NET(x) + 1, "x": X}).order == 2


@pytest.mark.parametrize("backend", ["eager", "autograd"])
def test_functions_of_wrong_output_shape(backend: str) -> None:
    for f, shape in ((lambda x: x.sum(1), "(3,)"), (lambda x: x.sum(), "()"), (lambda x: x[:2], "(2, 2)")):
        error = caught(ShapeError, f"maps (3, 2) to {shape}", f=f, backend=backend)
        if shape == "(3,)":
            fixed = eval(error.fix, {"f": f, "x": X})
            assert jet(fixed, X, 2, 0, backend=backend).shape == (3, 1)


@pytest.mark.parametrize("backend", ["eager", "autograd"])
def test_functions_that_return_no_tensor(backend: str) -> None:
    def f(x: torch.Tensor) -> Any:
        return NET(x), x

    error = caught(DtypeError, "f returned tuple", f=f, backend=backend)
    assert jet(eval(error.fix, {"f": f}), X, 1, 0, backend=backend).shape == (3, 1)
    caught(DtypeError, "f returned NoneType", f=lambda _: None, backend=backend)


def test_branching_on_a_series() -> None:
    class Branch(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x else -x

    caught(DtypeError, "a Jet has no truth value", f=Branch())


@pytest.mark.parametrize(
    ("arguments", "kind", "fragment"),
    [
        ({"width": 0}, ArgumentError, "width must be at least 1"),
        ({"depth": 1.5}, DtypeError, "depth must be a non-negative integer, got 1.5"),
        ({"activation": "tanhh"}, UnknownNameError, "did you mean tanh"),
        ({"activation": "swish"}, UnknownNameError, "unknown activation 'swish'"),
    ],
)
def test_network_arguments(arguments: dict[str, Any], kind: type[NtangentError], fragment: str) -> None:
    with pytest.raises(kind, match=fragment):
        inspect.unwrap(nt.MLP)(1, 1, **arguments)


def test_errors_survive_pickling() -> None:
    import pickle

    error = caught(ShapeError, "direction is needed", direction=None)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin), twin.fix) == (ShapeError, str(error), error.fix)


def test_jets_do_not_pretend_to_be_tensors() -> None:
    assert not isinstance(nt.jet(torch.sin, LINE, 1), torch.Tensor)
    assert isinstance(nt.jet(torch.sin, LINE, 1), Jet)
