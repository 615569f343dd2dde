"""The change-point rule on planted curves: boundaries with their intervals, and none where there is none."""

import math

import numpy as np
import pytest
import torch

from ntangent import diagnose
from ntangent._base.errors import ArgumentError, ShapeError


def curve(fit=150, rise=11_100, last=100_000, noise=0.3, seed=0, every=100):
    """SNR as in the paper's Allen-Cahn runs: 65 falling, 0.03, then 3; readings dense below 300."""
    t = np.concatenate([np.arange(2, 300, 2), np.arange(300, last + 1, every)]).astype(float)
    falling = 65 * (t / 2) ** -1.2
    level = np.where(t < fit, falling, 0.03)
    level = np.where(t >= rise, 3.0, level)
    return t, level * np.exp(noise * np.random.default_rng(seed).standard_normal(len(t)))


@pytest.mark.parametrize("seed", range(10))
def test_three_planted_phases_are_found(seed):
    t, snr = curve(seed=seed)
    found = diagnose.phases(t, snr)
    assert [phase.name for phase in found.phases] == ["fitting", "diffusion", "total diffusion"]
    assert found.transition.low <= 11_100 <= found.transition.high
    assert found.transition.iteration == pytest.approx(11_100, rel=0.1)
    assert found.transition.high / found.transition.low < 1.3
    assert found["diffusion"].boundary.iteration == pytest.approx(150, rel=0.4)
    assert found["diffusion"].level == pytest.approx(0.03, rel=0.15)
    assert found["total diffusion"].level == pytest.approx(3, rel=0.15)
    assert found.current == "total diffusion"
    for before, after in zip(found.phases, found.phases[1:], strict=False):
        assert before.stop <= after.boundary.iteration <= after.stop


@pytest.mark.parametrize("seed", range(10))
def test_no_transition_is_an_answer(seed):
    t, snr = curve(rise=10**9, seed=seed)
    found = diagnose.phases(t, snr)
    assert [phase.name for phase in found.phases] == ["fitting", "diffusion"]
    assert found.transition is None and found.current == "diffusion"
    assert found.reason.startswith("no transition found")


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_rise_does_not_hide_the_low_phase_before_it(seed):
    t = np.geomspace(20, 45_000, 400)
    x = np.log10(t)
    # A fall to 0.1 (mean 0.4), a ramp with mean 0.8, a level of 1.8: more than 3 times 0.4, not 0.8.
    knots, values = [20, 100, 110, 300, 301, 600, 610, 45_000], [1.4, 0.8, 0.2, -1.0, -0.7, 0.5, 0.25, 0.25]
    y = np.interp(x, np.log10(knots), values)
    snr = 10 ** (y + 0.02 * np.random.default_rng(seed).standard_normal(len(t)))
    found = diagnose.phases(t, snr)
    assert [phase.name for phase in found.phases] == ["fitting", "diffusion", "total diffusion"]
    assert 300 < found.transition.iteration < 700


def test_a_run_that_never_left_fitting():
    t = np.arange(1.0, 400)
    found = diagnose.phases(t, 50 * t**-0.3)
    assert [phase.name for phase in found.phases] == ["fitting"]
    assert found["diffusion"] is None and "never fell" in found.reason


def test_a_late_fall_is_neither_diffusion_nor_the_end_of_the_transition():
    t, snr = curve(last=300_000)
    snr = np.where(t > 200_000, snr * 1e-3, snr)
    found = diagnose.phases(t, snr)
    assert [phase.name for phase in found.phases] == ["fitting", "diffusion", "total diffusion", "late"]
    assert found.phases[3].boundary.iteration == pytest.approx(200_000, rel=0.1)


def test_rises_that_are_too_small_are_no_transition():
    t, snr = curve()
    small = np.where(t >= 11_100, snr / 10, snr)  # from 0.03 to 0.3: still more noise than signal
    assert diagnose.phases(t, small).transition is None
    assert diagnose.phases(t, small, threshold=0.1).transition is not None
    near = np.where((t >= 150) & (t < 11_100), snr * 13, snr)  # from 0.4 to 3
    assert diagnose.phases(t, near, rise=20).transition is None


def test_more_noise_means_wider_intervals():
    def width(noise):
        found = [diagnose.phases(*curve(noise=noise, every=1000, seed=seed)).transition for seed in range(8)]
        return sum(math.log(boundary.high / boundary.low) for boundary in found)

    assert width(3.0) > 1.2 * width(0.1)


def test_intervals_cover_the_planted_boundary():
    # 95 % intervals of a boundary inside a cell of the resampling: nearly all of 40 cover it.
    covered = sum(
        (b := diagnose.phases(*curve(noise=1.0, seed=seed)).transition) is not None
        and b.low <= 11_100 <= b.high
        for seed in range(40)
    )
    assert covered >= 36


def test_exact_curves_have_narrow_boundaries():
    t, snr = curve(noise=0.0)
    found = diagnose.phases(t, snr)
    assert found.transition.low <= 11_100 <= found.transition.high
    assert found.transition.high / found.transition.low < 1.2


def test_scaling_time_moves_the_boundary_with_it():
    t, snr = curve()
    one, two = diagnose.phases(t, snr).transition, diagnose.phases(2 * t, snr).transition
    assert two.iteration == pytest.approx(2 * one.iteration, rel=1e-6)


def test_useless_readings_are_left_out():
    t, snr = curve()
    spoilt = snr.copy()
    spoilt[::7] = math.nan
    spoilt[3::50] = math.inf
    assert diagnose.phases(t, spoilt).transition.iteration == pytest.approx(11_100, rel=0.1)


def test_moving_average_and_smoothing():
    values = torch.arange(10.0)
    found = diagnose.moving_average(values, 3)
    expected = torch.tensor([0.5, *range(1, 9), 8.5], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert torch.equal(diagnose.moving_average(values, 1), values.double())
    # Mean and noise are averaged before the ratio is taken, not the ratio.
    smooth = diagnose.smoothed_snr([1.0, 3.0], [1.0, 1e3], window=2)
    assert float(smooth[1]) == pytest.approx(4 / 1001)
    long = diagnose.moving_average(torch.ones(200), 60)
    torch.testing.assert_close(long, torch.ones(200, dtype=torch.float64))


def test_the_rule_survives_smoothing():
    t, snr = curve(noise=0.8)
    found = diagnose.phases(t, diagnose.smoothed_snr(snr, np.ones_like(snr), 10))
    assert [phase.name for phase in found.phases] == ["fitting", "diffusion", "total diffusion"]
    assert found.transition.iteration == pytest.approx(11_100, rel=0.15)


def test_wrong_arguments_are_refused():
    with pytest.raises(ArgumentError, match="usable"):
        diagnose.phases([1, 2, 3], [1, 2, 3])
    with pytest.raises(ArgumentError, match="increasing"):
        diagnose.phases([*range(20, 0, -1)], [1.0] * 20)
    with pytest.raises(ShapeError):
        diagnose.phases([1, 2, 3], [1, 2])
    with pytest.raises(ArgumentError, match="factor upwards"):
        diagnose.phases([*range(1, 21)], [1.0] * 20, rise=0.5)
    with pytest.raises(ArgumentError):
        diagnose.moving_average([1.0], 0)
