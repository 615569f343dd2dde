"""All rules applied to the files of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntangent.report.data import RunData
from ntangent.report.diagnosis.base import HOLDS, RULES, UNKNOWN, Answer, Rule
from ntangent.run.files import jsonable


@dataclass(frozen=True)
class Finding:
    """A rule that holds.

    Args:
        name: of the rule.
        rule: the rule.
        answer: what it found.
    """

    name: str
    rule: Rule
    answer: Answer

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "rule": self.name,
            "title": self.rule.title,
            "text": self.answer.text,
            "evidence": self.answer.evidence,
            "threshold": self.rule.threshold,
            "source": self.rule.source,
            "advice": list(self.rule.advice),
            "figure": f"figures/{figure_name(self.name)}.png",
        }


@dataclass(frozen=True)
class Diagnosis:
    """What the rules say of a run.

    Args:
        findings: the rules that hold, in the order of the table.
        checked: names of the rules that could be decided.
        unknown: by name, why the others could not.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    unknown: dict[str, str]

    def document(self) -> dict[str, Any]:
        """Return it as plain data, for ``ntangent report --json``."""
        plain: dict[str, Any] = jsonable(
            {
                "findings": [finding.document() for finding in self.findings],
                "checked": list(self.checked),
                "unknown": self.unknown,
            },
            "diagnosis",
        )
        return plain


def figure_name(rule: str) -> str:
    """Return the name of the figure of a rule."""
    return f"diagnosis-{rule}"


def diagnose_run(run: str | Path | RunData) -> Diagnosis:
    """Return which faults the files of a run show.

    Args:
        run: the run folder, or its files as read already.

    Raises:
        RunFolderError: there is no run in the folder, or one of its files is damaged.

    Cost: milliseconds; about 0.1 s where phases are looked for.
    """
    data = run if isinstance(run, RunData) else RunData.read(run)
    answers = {name: (rule, rule.check(data)) for name, rule in RULES.items()}
    return Diagnosis(
        tuple(Finding(name, rule, a) for name, (rule, a) in answers.items() if a.state == HOLDS),
        tuple(name for name, (_, a) in answers.items() if a.state != UNKNOWN),
        {name: a.text for name, (_, a) in answers.items() if a.state == UNKNOWN},
    )
