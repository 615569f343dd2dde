"""``write_report``: PNG figures and one self-contained HTML page, out of a run's files."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntangent._base.extras import require_extra
from ntangent.report.data import RunData, symbol
from ntangent.report.diagnosis import RULES, Diagnosis, diagnose_run
from ntangent.report.diagnosis.run import figure_name
from ntangent.report.figures import FIGURES, derivative_name
from ntangent.report.style import DARK, LIGHT, png, power_of_ten
from ntangent.run import RunFolder
from ntangent.run.files import write_atomically

TEMPLATE = Path(__file__).with_name("report.html.j2")


@dataclass(frozen=True)
class Picture:
    """A figure in both palettes, as the text of data URLs."""

    name: str
    caption: str
    light: str
    dark: str


def write_report(run_dir: str | Path) -> Path:
    """Write ``figures/*.png`` and ``report.html`` into a run folder; return the page's path.

    Everything is taken from ``config.json``, ``metrics.jsonl``, ``result.json``, ``final.json`` and
    ``evaluation.npz``. An unfinished run gets a page of what is there.

    Args:
        run_dir: the run folder.

    Raises:
        RunFolderError: there is no run in the folder, or one of its files is damaged.
        MissingExtraError: matplotlib or jinja2 is not installed.

    Cost: about two seconds.
    """
    require_extra("report", "a report")
    data = RunData.read(run_dir)
    folder = RunFolder.open(run_dir)
    diagnosis = diagnose_run(data)
    pictures = draw(data, folder.figures)
    page = render(data, pictures, diagnosis, draw_findings(data, diagnosis, folder.figures))
    write_atomically(folder.report_path, page.encode())
    return folder.report_path


def draw(data: RunData, directory: Path) -> list[Picture]:
    """Write the figures that the files allow into ``directory`` and return them."""
    directory.mkdir(exist_ok=True)
    pictures = []
    for name, (caption, figure) in FIGURES.items():
        path = directory / f"{name}.png"
        light = figure(data, LIGHT)
        if light is None:
            path.unlink(missing_ok=True)  # of an earlier report
            continue
        content = png(light)
        write_atomically(path, content)
        pictures.append(Picture(name, caption, _url(content), _url(png(figure(data, DARK)))))
    return pictures


def draw_findings(data: RunData, diagnosis: Diagnosis, directory: Path) -> dict[str, Picture]:
    """Write the figure of every rule that holds into ``directory``; return them by rule."""
    for old in directory.glob(f"{figure_name('*')}.png"):
        old.unlink()
    pictures = {}
    for found in diagnosis.findings:
        light, dark = (png(found.rule.draw(data, palette, found.answer)) for palette in (LIGHT, DARK))
        write_atomically(directory / f"{figure_name(found.name)}.png", light)
        pictures[found.name] = Picture(figure_name(found.name), found.rule.title, _url(light), _url(dark))
    return pictures


def _url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def render(data: RunData, pictures: list[Picture], diagnosis: Diagnosis, shown: Mapping[str, Picture]) -> str:
    """Return the page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters.update(number=_number, size=power_of_ten, symbol=symbol, duration=_duration)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    result = data.result or {}
    derivative_errors = [
        (derivative_name(data.field, order), error)
        for order, error in enumerate(result.get("max_errors", []))
    ]
    return template.render(
        data=data,
        result=result,
        cards=cards(data),
        unknowns=_unknowns(data),
        derivative_errors=derivative_errors,
        terms=_terms(result),
        stages=data.stages(),
        configuration=_configuration(data),
        pictures=pictures,
        diagnosis=diagnosis,
        shown=shown,
        rules=dict(RULES.items()),
    )


def cards(data: RunData) -> list[tuple[str, str, str]]:
    """Return the headline numbers as (label, value, note)."""
    result = data.result or {}
    rows = []
    for name, value, expected, error in _unknowns(data):
        note = f"error {power_of_ten(error)}" if error is not None else "found"
        rows.append(
            (
                symbol(name),
                f"{value:.9g}",
                f"{note}, expected {expected:.6g}" if expected is not None else note,
            )
        )
    if "max_errors" not in result:
        for name, errors in result.get("errors", {}).items():
            short = symbol(name)
            rows.append((f"max |{short} − exact|", power_of_ten(errors["max"]), "on the whole domain"))
            rows.append((f"{short}, relative L2", power_of_ten(errors["relative_l2"]), "error"))
    if result.get("max_errors"):
        rows.append(
            (f"max |{data.field} − exact|", power_of_ten(result["max_errors"][0]), "on the whole domain")
        )
    if "max_residual" in result:
        rows.append(("max |residual|", power_of_ten(result["max_residual"]), "of the equation"))
    if data.loss is not None:
        rows.append(("loss", power_of_ten(data.loss), "final" if data.result else "last recorded"))
    rows.append(("iterations", f"{data.iterations:,}".replace(",", " "), f"in {_duration(data.seconds)}"))
    return rows


def _unknowns(data: RunData) -> list[tuple[str, float, float | None, float | None]]:
    """Return (name, value, expected, error) of every unknown."""
    rows = []
    for name, value in data.unknowns.items():
        truth = data.expected.get(name)
        rows.append((name, float(value), truth, None if truth is None else abs(float(value) - truth)))
    return rows


def _terms(result: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Return (name, value, share) of every term of the loss, the largest first."""
    terms = {name: float(value) for name, value in result.get("terms", {}).items()}
    total = math.fsum(terms.values())
    rows = [(name, value, value / total if total > 0 else 0.0) for name, value in terms.items()]
    return sorted(rows, key=lambda row: -row[1])


def _configuration(data: RunData) -> list[tuple[str, str]]:
    """Return what was run, as (name, text)."""
    config = data.config
    rows = [("problem", data.name)]
    rows += [(f"option {name}", _plain(value)) for name, value in data.options.items()]
    rows += [(f"stage {index}", text) for index, text in enumerate(config.get("stages", []), start=1)]
    for name in ("network", "sampler", "sobolev", "statement", "seed", "dtype", "threads"):
        if name in config:
            rows.append((name, _plain(config[name])))
    rows += [("ntangent", _plain(config.get("version"))), ("torch", _plain(config.get("torch")))]
    return rows


def _plain(value: Any) -> str:
    """Return configuration data as one readable line."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key}={_plain(item)}" for key, item in value.items() if key != "type")
        return f"{value.get('type', '')}({inner})"
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return str(value)


def _number(value: float) -> str:
    return f"{value:.12g}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
