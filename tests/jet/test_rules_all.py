"""Every Taylor rule against nested reverse mode: lines, three directions, two algebras, gradients."""

import pytest
from rulecases import CASES
from rulecheck import Case, check_case


@pytest.mark.parametrize("case", [c for group in CASES.values() for c in group], ids=lambda c: c.name)
def test_rule(case: Case) -> None:
    check_case(case)
