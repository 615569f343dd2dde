"""Timing: the backends of ``jet`` against nested autograd and against the floor, on this machine."""

from ntangent.bench.cells import Cell, Series
from ntangent.bench.check import Verdict
from ntangent.bench.contenders import BASELINE, FLOOR, Contender, Outcome, Work, find, from_function, loss_of
from ntangent.bench.store import Lines, document, fill, write_document
from ntangent.bench.sweep import Result, Settings, Sweep, about_here, median, wrong
from ntangent.bench.timing import Effort, Task, measure

__all__ = [
    "BASELINE",
    "FLOOR",
    "Cell",
    "Contender",
    "Effort",
    "Lines",
    "Outcome",
    "Result",
    "Series",
    "Settings",
    "Sweep",
    "Task",
    "Verdict",
    "Work",
    "about_here",
    "document",
    "fill",
    "find",
    "from_function",
    "loss_of",
    "measure",
    "median",
    "write_document",
    "wrong",
]
