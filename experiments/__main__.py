"""``python -m experiments``, from the root of the repository."""

from experiments._common.command import main
from experiments.ad_vs_fd.run import PAPER as AD_VS_FD
from experiments.n_tangentprop.run import PAPER as N_TANGENTPROP
from experiments.stiff_gradients.run import PAPER as STIFF_GRADIENTS
from experiments.total_diffusion.run import PAPER as TOTAL_DIFFUSION

PAPERS = {paper.key: paper for paper in (N_TANGENTPROP, AD_VS_FD, TOTAL_DIFFUSION, STIFF_GRADIENTS)}

if __name__ == "__main__":
    main(PAPERS)
