"""Every Python block of the README and of the documentation runs, in order, one namespace per page."""

import re
from pathlib import Path

import pytest

from ntangent import diagnose, ode, pinn, problems

ROOT = Path(__file__).parents[1]
DOCS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))
PAGES = [page for page in ["README.md", *DOCS] if "```python" in (ROOT / page).read_text(encoding="utf-8")]
TABLES = (
    diagnose.measures,
    ode.methods.METHODS,
    pinn.sampling.RESAMPLERS,
    pinn.sampling.SAMPLERS,
    pinn.weighting.WEIGHTINGS,
    problems.CATALOGUE,
)


@pytest.fixture(autouse=True)
def tables_as_before():
    """Take back what the pages on extensions register."""
    before = [dict(table._rows) for table in TABLES]
    yield
    for table, rows in zip(TABLES, before, strict=True):
        table._rows.clear()
        table._rows.update(rows)


def test_every_section_has_pages_that_run() -> None:
    assert {"docs/usage", "docs/extend", "README.md"} <= {page.rpartition("/")[0] or page for page in PAGES}


def test_the_table_of_ode_methods_is_the_one_that_is_printed() -> None:
    text = (ROOT / "docs" / "usage" / "ode.md").read_text(encoding="utf-8")
    assert ode.methods.markdown(ode.methods.table()) in text


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


def test_the_readme_finds_the_rate_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["solution"].unknowns["r"] == pytest.approx(1.0, abs=1e-4)
