"""Conformance suites, oracles and hypothesis strategies, for this package and for its extensions.

Needs the extra ``test`` (mpmath, hypothesis). Nothing else in the package imports this module.
"""

from ntangent.testing.operators import check_operator as check_operator
from ntangent.testing.oracles import DEFINITIONS as DEFINITIONS
from ntangent.testing.oracles import nested_reverse as nested_reverse
from ntangent.testing.oracles import taylor_of_composition as taylor_of_composition
from ntangent.testing.suites import check_activation as check_activation
from ntangent.testing.suites import check_backend as check_backend
from ntangent.testing.suites import check_close as check_close
from ntangent.testing.suites import check_rule as check_rule
from ntangent.testing.suites import check_series as check_series
