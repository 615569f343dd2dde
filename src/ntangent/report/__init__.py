"""Figures and the HTML page of a run, made from its files and never from live objects."""

from ntangent.report.page import write_report as write_report
