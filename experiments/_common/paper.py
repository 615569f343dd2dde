"""What a paper's folder holds: figures, and claims with the paper's numbers."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMOKE, FULL = "smoke", "full"


@dataclass(frozen=True)
class Options:
    """What the command line says of a run.

    Args:
        size: "smoke" for seconds and small sizes, "full" for the paper's.
        threads: of torch; None leaves it as it is.
        budget: seconds after which nothing further is measured; the run can be continued.
        clock: "wall" or "cpu": the time that figures and claims show.
    """

    size: str = FULL
    threads: int | None = None
    budget: float = float("inf")
    clock: str = "wall"


@dataclass(frozen=True)
class Figure:
    """A figure of a paper.

    Args:
        number: as in the paper.
        title: what it shows.
        data: name of the data it is drawn from; figures may share it.
        draw: from the file of the data and the options to a PNG file as bytes.
    """

    number: int
    title: str
    data: str
    draw: Callable[[Path, Options], bytes]


@dataclass(frozen=True)
class Paper:
    """A paper that is redone here.

    Args:
        key: name of its folder.
        figures: number -> figure.
        measure: name of the data -> function of the file to write or to continue, and the options;
            it returns whether the data are complete.
        check: from claims, data name -> file, and options to our value of each claim, None where the
            data do not say.
    """

    key: str
    figures: Mapping[int, Figure]
    measure: Mapping[str, Callable[[Path, Options], bool]]
    check: Callable[[Sequence[dict[str, Any]], Mapping[str, Path], Options], list[float | None]]

    @property
    def facts(self) -> dict[str, Any]:
        """What paper.toml says."""
        path = Path(__file__).resolve().parents[1] / self.key / "paper.toml"
        return tomllib.loads(path.read_text(encoding="utf-8"))


def wanted(text: str | None, paper: Paper) -> list[Figure]:
    """Return the figures of a text such as "1..3,5"; all of them without one."""
    if text is None:
        return list(paper.figures.values())
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dots, last = part.partition("..")
            numbers += range(int(first), int(last) + 1) if dots else [int(first)]
    except ValueError:
        raise SystemExit(f"--figure {text}: write numbers as 1, 1,3 or 1..5") from None
    if missing := [n for n in numbers if n not in paper.figures]:
        known = ", ".join(str(n) for n in paper.figures)
        raise SystemExit(f"{paper.key} has no figure {missing[0]} here yet; there are {known}")
    return [paper.figures[n] for n in numbers]
