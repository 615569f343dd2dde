"""``python -m experiments``, from the root of the repository."""

from experiments._common.command import main
from experiments.n_tangentprop.run import PAPER

PAPERS = {paper.key: paper for paper in (PAPER,)}

if __name__ == "__main__":
    main(PAPERS)
