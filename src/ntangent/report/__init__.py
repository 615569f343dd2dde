"""Figures and the HTML page of a run, made from its files and never from live objects."""

from ntangent.report.diagnosis import diagnose_run as diagnose_run
from ntangent.report.page import write_report as write_report
