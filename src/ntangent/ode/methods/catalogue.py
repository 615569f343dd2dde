"""The table of methods: one row per method, found under its name or an alias, proved at first use."""

from __future__ import annotations

import re

from ntangent._base.errors import ArgumentError, UnknownNameError
from ntangent._base.registry import Registry, nearest_names
from ntangent.ode.methods.base import Method
from ntangent.ode.methods.kinds import Taylor

METHODS: Registry[Method] = Registry("ODE method")
ALIASES: Registry[str] = Registry("ODE method alias")

_MADE: dict[str, Method] = {}  # Taylor methods asked for that the table does not list
_TAYLOR = re.compile(r"taylor(\d+)|pade(\d+)_(\d+)")


def add(method: Method) -> Method:
    """Put a method into the table without a proof; :func:`get` proves it at first use."""
    taken = _names_by_key()
    for name in (method.name, *method.aliases):
        if _key(name) in taken:
            raise ArgumentError(
                f"the ODE method {name!r} is already registered",
                "two methods under one name would make the result depend on import order",
                f"choose another name than {name!r}",
            )
    for alias in method.aliases:
        ALIASES.add(alias, method.name)
    return METHODS.add(method.name, method)


def register(method: Method) -> Method:
    """Prove a method and put it into the table.

    Raises:
        ArgumentError: naming the condition that fails, or if the name is taken.
    """
    _ = method.order_proved
    return add(method)


def get(name: str | Method) -> Method:
    """Return a method of the catalogue, proved; a method itself is proved and returned.

    Besides the names of the table there are ``taylorN`` and ``padeK_L`` for any N, K, L. Case does
    not matter, and ``-`` and spaces are ``_``: ``"Backward-Euler"`` is ``"backward_euler"``.

    Raises:
        UnknownNameError: with the nearest names.
        ArgumentError: if the coefficients do not have the order they claim.

    Example:
        >>> from ntangent.ode import methods
        >>> radau = methods.get("radau5")
        >>> radau.order, radau.is_l_stable, radau.decay_order
        (5, True, 2)
        >>> [tuple(round(x, 3) for x in interval) for interval in radau.wrong_sign_intervals]
        [(-17.729, -4.808)]
    """
    method = name if isinstance(name, Method) else _find(name)
    _ = method.order_proved  # the proof, once
    return method


def _key(name: str) -> str:
    """Return what two spellings of one name share."""
    return re.sub(r"[-\s]", "_", str(name).strip()).lower()


def _names_by_key() -> dict[str, str]:
    """Return the name in the table for the key of every name and alias."""
    return {_key(n): n for n in METHODS} | {_key(n): ALIASES[n] for n in ALIASES}


def _find(name: str) -> Method:
    if name in METHODS:
        return METHODS[name]
    known = _names_by_key()
    if (key := _key(name)) in known:
        return METHODS[known[key]]
    if found := _TAYLOR.fullmatch(key):
        order, k, degree = (int(x) if x else 0 for x in found.groups())
        if key not in _MADE:
            _MADE[key] = taylor(order) if found[1] else pade_taylor(k, degree)
        return _MADE[key]
    raise UnknownNameError(
        f"unknown ODE method {name!r}",
        f"it is not in the table of {len(METHODS)} methods",
        nearest_names(key, [*METHODS, *ALIASES]),
    )


def names() -> list[str]:
    """Return the names of the table in its order, aliases left out."""
    return list(METHODS)


def taylor(order: int) -> Taylor:
    """Return the explicit Taylor method of an order ≥ 1."""
    return _taylor(order, 0, f"taylor{order}", "Taylor")


def pade_taylor(numerator: int, denominator: int) -> Taylor:
    """Return the method of k derivatives at the start and l ≥ 1 at the end of a step; order k + l.

    It is A-stable exactly for l - 2 ≤ k ≤ l (Wanner, Hairer & Nørsett 1978).
    """
    return _taylor(numerator, denominator, f"pade{numerator}_{denominator}", "Padé-Taylor")


def _taylor(numerator: int, denominator: int, name: str, family: str) -> Taylor:
    if numerator + denominator < 1:
        raise ArgumentError(
            f"{name} has order 0", "a step needs at least one derivative", "methods.get('taylor1')"
        )
    return Taylor(
        name=name,
        family=family,
        source="Hairer, Nørsett & Wanner I, II.1 and II.13; Hairer & Wanner II, IV.3",
        order=numerator + denominator,
        numerator=numerator,
        denominator=denominator,
    )
