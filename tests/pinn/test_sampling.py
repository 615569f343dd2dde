"""Samplers respect domains; adaptive ones move points, and to where the residual is large."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import qmc

from ntangent._base.errors import NtangentError
from ntangent.pinn.domains import Box, Disc, Interval, Polygon
from ntangent.pinn.held_out import other_sampler
from ntangent.pinn.sampling import (
    R3,
    RAD,
    RAR,
    RESAMPLERS,
    SAMPLERS,
    Chebyshev,
    Clustered,
    FixedPoints,
    Grid,
    Halton,
    LatinHypercube,
    Resample,
    Resampler,
    Sampler,
    Sobol,
    Spectral,
    Uniform,
    denser,
)

F64, CPU = torch.float64, torch.device("cpu")
BOX = Box(x=(-1, 1), t=(0, 2))
DOMAINS = [
    BOX,
    Disc((1, 2), 0.5) * Box(t=(0, 1)),
    Polygon([(0, 0), (2, 0), (2, 2), (1, 0.5), (0, 2)]),
    Box(x=(-1, 1), y=(-1, 1)) - Disc(radius=0.5),
]
SIZED = [Uniform(100), LatinHypercube(100), Sobol(100), Halton(100), Clustered(100, x=0.5, width=0.3)]
EVERY = [*SIZED, Grid(7), Chebyshev(5), Spectral(5, periodic="x"), FixedPoints([[0.5, 1.0]])]
ADAPTIVE = [Resample(), RAD(), RAR(), RAR(greedy=True), R3()]


def test_every_sampler_is_tested():
    assert {type(s).__name__ for s in EVERY} == set(SAMPLERS)
    assert {type(s).__name__ for s in ADAPTIVE} == set(RESAMPLERS)
    assert all(isinstance(s, Sampler) for s in EVERY) and all(isinstance(r, Resampler) for r in ADAPTIVE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sampler", [*SIZED, Grid(7)], ids=repr)
@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
def test_points_lie_in_the_domain(sampler, domain, dtype):
    points = sampler.points(domain, dtype, CPU)
    assert points.dtype == dtype and points.shape[1] == domain.dimension
    assert bool(domain.contains(points).all())
    assert torch.equal(points, sampler.points(domain, dtype, CPU))
    if sampler in SIZED:
        assert len(points) == sampler.n
        other = eval(repr(sampler).replace("seed=0", "seed=5"))
        assert not torch.equal(points, other.points(domain, dtype, CPU))


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_repr_rebuilds(sampler):
    again = eval(repr(sampler))
    assert repr(again) == repr(sampler)
    assert torch.equal(again.points(BOX, F64, CPU), sampler.points(BOX, F64, CPU))


def test_latin_hypercube_has_one_point_in_each_slice():
    points = LatinHypercube(64).points(BOX, F64, CPU)
    for column, low, length in ((points[:, 0], -1, 2), (points[:, 1], 0, 2)):
        slices = ((column - low) / length * 64).floor().long()
        assert sorted(slices.tolist()) == list(range(64))


@pytest.mark.parametrize("kind", [Sobol, Halton])
def test_low_discrepancy(kind):
    unit = Box(x=(0, 1), y=(0, 1))
    ours = qmc.discrepancy(kind(256).points(unit, F64, CPU).numpy())
    random = np.median(
        [qmc.discrepancy(Uniform(256, seed=s).points(unit, F64, CPU).numpy()) for s in range(5)]
    )
    assert ours < random / 5


def test_boundary_points_of_a_sampler():
    points, normals = Sobol(40).boundary(Disc().boundary, torch.float32, CPU)
    assert points.dtype == normals.dtype == torch.float32
    assert torch.allclose(points.norm(dim=1), torch.ones(40)) and torch.allclose(points, normals)


def test_tensor_products_with_counts_for_each_coordinate():
    points = Chebyshev(4, 3).points(BOX, F64, CPU)
    assert points.shape == (12, 2)
    assert torch.equal(points, Chebyshev(t=3, x=4).points(BOX, F64, CPU))
    expected = np.polynomial.chebyshev.chebgauss(4)[0][::-1]
    assert np.allclose(points[::3, 0].numpy(), expected, atol=1e-15)
    grid = Grid(x=3, t=2).points(BOX, F64, CPU)
    assert grid.tolist() == [[-1, 0], [-1, 2], [0, 0], [0, 2], [1, 0], [1, 2]]
    assert Grid(n=4) == Grid(4) and Grid(5).n == 5


def test_clustered_follows_its_density():
    sampler = Clustered(3000, x=0.3, width=0.2, fraction=1.0, seed=3)
    x = sampler.points(BOX, F64, CPU)[:, 0].numpy()
    law = stats.truncnorm((-1 - 0.3) / 0.2, (1 - 0.3) / 0.2, loc=0.3, scale=0.2)
    assert stats.kstest(x, law.cdf).pvalue > 1e-3
    third = Clustered(900, x=0.0, width=0.01, fraction=1 / 3).points(BOX, F64, CPU)
    near = int((third[:, 0].abs() < 0.05).sum())
    assert 300 <= near <= 300 + 60  # 600 uniform points put 15 ± 4 in that strip
    ring = Clustered(2000, x=0.0, width=0.3, fraction=1.0).points(Disc(), F64, CPU)[:, 0].numpy()
    # On the disc: the Gaussian times the length of the chord.
    grid = np.linspace(-1, 1, 4001)
    cdf = np.cumsum(np.exp(-0.5 * (grid / 0.3) ** 2) * np.sqrt(1 - grid**2))
    assert stats.kstest(ring, lambda v: np.interp(v, grid, cdf / cdf[-1])).pvalue > 1e-3


@pytest.mark.parametrize("centre", [-60.0, -2.0, 0.0, 2.0, 60.0])
def test_clusters_outside_the_domain_still_fill_it(centre):
    x = Clustered(400, x=centre, width=1.0, fraction=1.0).points(Interval(x=(-1, 1)), F64, CPU)[:, 0]
    assert bool(x.isfinite().all()) and -1 <= float(x.min()) < float(x.max()) <= 1
    law = stats.truncnorm(-1 - centre, 1 - centre, loc=centre)
    assert float(x.mean()) == pytest.approx(law.mean(), abs=4 * law.std() / 20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sobol(0),
        lambda: Halton(5, seed=-1),
        lambda: Grid(),
        lambda: Grid(3, x=4),
        lambda: Chebyshev(3, 4, 5).points(BOX, F64, CPU),
        lambda: Chebyshev(x=3, y=4).points(BOX, F64, CPU),
        lambda: Chebyshev(9).points(Disc(), F64, CPU),
        lambda: Grid(2).points(Disc(), F64, CPU),
        lambda: FixedPoints([[0.5, 3.0]]).points(BOX, F64, CPU),
        lambda: FixedPoints([0.5]).points(BOX, F64, CPU),
        lambda: FixedPoints([]),
        lambda: Clustered(10),
        lambda: Clustered(10, x=float("nan")),
        lambda: Clustered(10, x=0.0, fraction=2.0),
        lambda: Clustered(10, y=0.0).points(BOX, F64, CPU),
        lambda: RAD(k=-1.0),
        lambda: RAD(candidates=0),
        lambda: RAR(add=0),
        lambda: RAR(maximum=0),
        lambda: R3(every=0),
        lambda: update(RAD(), magnitude=lambda p: p[:, 0] * float("nan")),
        lambda: update(RAD(), magnitude=lambda p: p),
    ],
)
def test_refusals(make):
    with pytest.raises(NtangentError) as caught:
        make()
    assert str(caught.value)


# --- adaptive --------------------------------------------------------------------------------------


def peak(points):
    """A residual that is large around x = 0.5."""
    return torch.exp(-50 * (points[:, 0] - 0.5) ** 2)


def update(resampler, *, points=None, magnitude=peak, seed=0, state=None, domain=BOX):
    points = Uniform(200).points(domain, F64, CPU) if points is None else points
    state = resampler.start(domain, points) if state is None else state
    return resampler.update(domain, state, points, magnitude, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
@pytest.mark.parametrize("resampler", ADAPTIVE, ids=repr)
def test_points_move_and_stay_inside(resampler, domain):
    old = Uniform(200).points(domain, torch.float32, CPU)
    new, state = update(resampler, points=old, domain=domain)
    assert new.dtype == old.dtype and bool(domain.contains(new).all())
    fresh = [p for p in new if not bool((old == p).all(1).any())]
    assert len(fresh) == state["moved"] > 0 and state["round"] == 1
    again, _ = update(resampler, points=old, domain=domain)
    assert torch.equal(new, again)
    other, _ = update(resampler, points=old, domain=domain, seed=1)
    assert not torch.equal(new, other)


@pytest.mark.parametrize("resampler", ADAPTIVE, ids=repr)
def test_resuming_from_the_state_gives_the_same_points(resampler, tmp_path):
    generator = torch.Generator().manual_seed(0)
    points = Uniform(100).points(BOX, F64, CPU)
    state = resampler.start(BOX, points)
    points, state = resampler.update(BOX, state, points, peak, generator)
    torch.save((points, state, generator.get_state()), tmp_path / "state.pt")
    expected = resampler.update(BOX, state, points, peak, generator)
    points, state, numbers = torch.load(tmp_path / "state.pt", weights_only=True)
    generator = torch.Generator()
    generator.set_state(numbers)
    resumed = resampler.update(BOX, state, points, peak, generator)
    assert torch.equal(resumed[0], expected[0]) and resumed[1] == expected[1]


@pytest.mark.parametrize(("k", "c"), [(1.0, 1.0), (2.0, 0.0), (1.0, 0.0)])
def test_rad_has_the_density_of_the_paper(k, c):
    """On (0, 1) with residual x: density (k+1) x^k/(1+c) + c/(1+c)."""
    unit = Interval(x=(0, 1))
    points = Uniform(2000).points(unit, F64, CPU)
    new, _ = update(RAD(k=k, c=c, candidates=100), points=points, domain=unit, magnitude=lambda p: p[:, 0])
    law = stats.kstest(new[:, 0].numpy(), lambda x: (x ** (k + 1) + c * x) / (1 + c))
    # Choosing without repetition shifts the distribution by at most points/candidates = 0.01.
    assert law.statistic < 1.95 / np.sqrt(2000) + 0.01
    assert stats.kstest(new[:, 0].numpy(), "uniform").pvalue < 1e-6


def test_rad_without_a_residual_is_uniform():
    new, _ = update(RAD(), magnitude=lambda p: 0 * p[:, 0])
    assert stats.kstest(new[:, 1].numpy() / 2, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("greedy", [False, True])
def test_rar_adds_points_where_the_residual_is_large(greedy):
    old = Uniform(50).points(BOX, F64, CPU)
    new, _ = update(RAR(add=20, greedy=greedy, maximum=65), points=old)
    assert len(new) == 65 and torch.equal(new[:50], old)
    assert float(peak(new[50:]).mean()) > 3 * float(peak(old).mean())
    same, state = update(RAR(maximum=50), points=old)
    assert torch.equal(same, old) and state["moved"] == 0
    if greedy:
        assert float(peak(new[50:]).min()) > 0.9


def test_r3_retains_what_exceeds_the_mean_and_accumulates():
    old = Uniform(300).points(BOX, F64, CPU)
    keep = old[peak(old) > peak(old).mean()]
    points, state = update(R3(), points=old)
    assert torch.equal(points[: len(keep)], keep) and state["moved"] == 300 - len(keep)
    for seed in range(5):
        points, state = update(R3(), points=points, seed=seed, state=state)
    assert float(peak(points).mean()) > 2 * float(peak(old).mean()) and state["round"] == 6


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_every_sampler_has_held_out_and_more_points(sampler):
    points = sampler.points(BOX, F64, CPU)
    other = other_sampler(sampler, len(points)).points(BOX, F64, CPU)
    assert not any(bool((point == points).all(1).any()) for point in other)
    more = denser(sampler, 4, BOX.dimension)
    assert len(more.points(BOX, F64, CPU)) >= 3 * len(points) or isinstance(sampler, FixedPoints)
