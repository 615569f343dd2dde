from pathlib import Path

import pytest

from ntangent import problems


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few iterations, without its report."""
    path = tmp_path_factory.mktemp("run") / "profile"
    recipe = problems.BurgersProfile(k=1, width=8, points=40, iterations=12, features=0, restarts=0)
    problems.run("burgers-profile", recipe, run_dir=path, progress=False)
    return path
