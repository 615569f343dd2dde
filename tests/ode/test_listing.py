"""The table, the command that prints it, and the door for new tableaux."""

import dataclasses
import subprocess
import sys
from fractions import Fraction

import pytest
from click.testing import CliRunner

import ntangent as nt
from ntangent._base.errors import ArgumentError
from ntangent.cli.app import cli
from ntangent.ode import methods
from ntangent.ode.methods import METHODS, RungeKutta, matrix, vector


def test_the_table_has_every_method_once() -> None:
    rows = methods.table()
    assert [row.name for row in rows] == methods.names() == list(dict.fromkeys(row.name for row in rows))
    by_name = {row.name: row for row in rows}
    assert by_name["radau_iia3"].cells()[-4:] == ("0", "2", "3", "(-17.73, -4.808)")
    assert by_name["euler"].cells()[-4:] == ("-∞", "0", "1", "none")
    assert by_name["rk4"].cells()[-3] == "grows" and by_name["etd1"].cells()[-3:-1] == ("∞", "")


def test_markdown_is_a_table() -> None:
    lines = methods.markdown(methods.table(["radau5", "gauss2"])).splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1


def test_the_command_prints_the_table() -> None:
    result = CliRunner().invoke(cli, ["ode", "methods", "--markdown"])
    assert result.exit_code == 0, result.output
    assert result.output == methods.markdown(methods.table())
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["ode", "methods", "radau5", "pade4_5"])
    assert result.exit_code == 0 and "radau_iia3" in result.output and "pade4_5" in result.output
    assert "gauss2" not in result.output


def test_the_command_names_what_is_near() -> None:
    result = CliRunner().invoke(cli, ["ode", "methods", "radua5"])
    assert result.exit_code != 0 and "radau5" in result.output


def test_a_new_tableau_is_proved_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_rows", dict(METHODS.items()))
    kutta3 = RungeKutta(
        name="kutta3", family="explicit", source="Kutta 1901", order=3,
        A=matrix([[], ["1/2"], [-1, 2]], 3), b=vector(["1/6", "2/3", "1/6"]),
    )  # fmt: skip
    assert nt.extend.tableau(kutta3) is kutta3 and methods.get("kutta3") is kutta3
    with pytest.raises(ArgumentError, match="already registered"):
        nt.extend.tableau(kutta3)
    wrong = dataclasses.replace(kutta3, name="wrong", b=(Fraction(1, 6), Fraction(1, 6), Fraction(2, 3)))
    with pytest.raises(ArgumentError, match=r"the tableau of 'wrong' fails .* tree t = \[τ\]"):
        nt.extend.tableau(wrong)
    assert "wrong" not in METHODS


def test_importing_the_package_does_not_import_methods() -> None:
    script = "import sys, ntangent; print('ntangent.ode' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
