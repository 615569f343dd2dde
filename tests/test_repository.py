"""What the files of the repository say about each other must be true."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import ntangent

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GENERATED = (".venv", "build", "dist", "runs", "site")  # named before they exist
OPTIONAL = {"native"}  # the kernels' folder may be absent
SUFFIXES = "py|toml|txt|md|yml|cff|cpp"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))


def missing(paths: set[str]) -> list[str]:
    wanted = {path for path in paths if not path.startswith(GENERATED) and path not in OPTIONAL}
    return sorted(path for path in wanted if not (ROOT / path).exists())


def paths_in(text: str) -> set[str]:
    """Words that look like a file or a folder of the repository: a known suffix, or a trailing slash."""
    text = re.sub(r"https?://\S+", "", text)
    folder, file = r"(?:[\w-][\w.-]*/)+", rf"(?:[\w.-]+/)*[\w-]+\.(?:{SUFFIXES})"
    return set(re.findall(rf"(?<![\w./-])({folder}|{file})(?![\w/*-])", text))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not missing(paths_in(prose) | links)


def test_paths_in_makefile_exist() -> None:
    found = {name for name in re.findall(r"find ((?:[\w/]+ )+)-", MAKEFILE) for name in name.split()}
    found |= set(re.findall(r"pytest .*?([\w/]+)$", MAKEFILE, flags=re.MULTILINE))
    assert {"src", "tests"} <= found
    assert not missing(found | paths_in(MAKEFILE))


def test_paths_in_pyproject_exist() -> None:
    tool = PYPROJECT["tool"]
    found = {PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"]}
    found |= {*tool["scikit-build"]["wheel"]["packages"], *tool["pytest"]["ini_options"]["testpaths"]}
    found |= {*tool["ruff"]["src"], *tool["mypy"]["files"], tool["mypy"]["mypy_path"]}
    assert not missing(found)


def test_pages_in_the_navigation_exist() -> None:
    pages = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages == written


def test_script_entry_exists() -> None:
    for entry in PYPROJECT["project"]["scripts"].values():
        module, _, function = entry.partition(":")
        base = ROOT / "src" / module.replace(".", "/")
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        names = {getattr(node, "name", None) for node in ast.parse(path.read_text(encoding="utf-8")).body}
        assert function in names, f"{path.relative_to(ROOT)} does not define {function}"


def test_versions_agree() -> None:
    version = PYPROJECT["project"]["version"]
    assert ntangent.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_in_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^    |`)make ([a-z]+)", text, flags=re.MULTILINE))
    assert named
    assert named <= targets()


def test_phony_targets_are_defined() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == targets()


def test_every_dependency_is_constrained() -> None:
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *PYPROJECT["build-system"]["requires"]]
    wanted += [item for items in project["optional-dependencies"].values() for item in items]

    def name(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {name(line) for line in lines if line and not line.startswith("#")}
    assert {name(item) for item in wanted} - {"ntangent"} <= pinned
