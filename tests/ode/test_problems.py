"""The catalogue of problems against published end states, automatic Jacobians and closed forms."""

import pytest
import torch

from ntangent.ode import problems

# Mazzia & Magherini, Test Set for IVP Solvers, and Hairer & Wanner II, IV.10.
PUBLISHED = {
    "hires": {0: 0.7371312573325668e-3, 3: 0.1175651343283149e-2, 7: 0.2850001604814231e-2},
    "orego": {0: 0.1000814870318523e1, 1: 0.1228178521549917e4, 2: 0.1320554942846706e3},
    "pollu": {0: 0.5646255480022769e-1, 2: 0.4139734331099427e-8, 15: 0.4352846369330103e-17,
              19: 0.5682943292316392e-4},
    "robertson": {0: 0.7158270687193941, 1: 0.9185534764557338e-5, 2: 0.2841637457458413},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_references_reach_the_published_end_states(name: str) -> None:
    problem = problems.get(name)
    end = problem.reference(torch.tensor(problem.span, dtype=torch.float64))[-1]
    for component, value in PUBLISHED[name].items():
        assert end[component].item() == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize("name", problems.names())
def test_jacobians_and_batches(name: str) -> None:
    problem = problems.get(name)
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(4, len(problem.y0), dtype=torch.float64, generator=generator)
    t = torch.rand(4, 1, dtype=torch.float64, generator=generator)
    batch = problem.func()(t, y)
    for i in range(4):
        torch.testing.assert_close(batch[i], problem.func()(t[i, 0], y[i]))
    given = problem.jacobian()
    if given is not None:
        for i in range(4):
            exact = torch.func.jacrev(lambda x, i=i: problem.func()(t[i, 0], x))(y[i])
            torch.testing.assert_close(
                given(t, y)[i], exact, rtol=1e-12, atol=1e-12 * float(exact.abs().max())
            )


@pytest.mark.parametrize("name", problems.names())
def test_closed_forms_solve_the_equation(name: str) -> None:
    problem = problems.get(name, **({"k": 30.0} if name in ("slow_data", "prothero_robinson") else {}))
    if problem.exact is None:
        pytest.skip("no closed form")
    p, t = problem.parameters(), torch.tensor([0.03, 0.4])
    times = t.double()
    slope = torch.func.jvp(lambda s: problem.exact(s, p), (times,), (torch.ones(2).double(),))[1]
    field = torch.stack([problem.func()(s, y) for s, y in zip(times, problem.exact(times, p), strict=True)])
    torch.testing.assert_close(slope, field, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(problem.exact(torch.zeros(1).double(), p)[0], problem.initial())


def test_the_chemistry_of_pollu_keeps_nitrogen() -> None:
    # NO2, NO, NO3, HNO3, N2O5 twice, PAN, ...: species 1, 2, 12..15 and 19, 20 carry nitrogen atoms.
    problem = problems.get("pollu")
    atoms = torch.zeros(20, dtype=torch.float64)
    for species, count in {1: 1, 2: 1, 13: 1, 15: 1, 19: 1, 20: 2}.items():
        atoms[species - 1] = count
    y = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rate = problem.func()(torch.zeros(()), y)
    assert abs(float(atoms @ rate)) < 1e-12 * float((atoms * rate.abs()).sum())
