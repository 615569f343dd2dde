"""The diagnosis of a run: rules over its files, each with a threshold, a source and what to try."""

import importlib
import pkgutil

from ntangent.report.diagnosis.base import RULES as RULES
from ntangent.report.diagnosis.base import Answer as Answer
from ntangent.report.diagnosis.base import Rule as Rule
from ntangent.report.diagnosis.run import Diagnosis as Diagnosis
from ntangent.report.diagnosis.run import Finding as Finding
from ntangent.report.diagnosis.run import diagnose_run as diagnose_run

# A file of this folder registers its rule when it is imported: one more rule is one new file.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
