"""The monitor on a plain loop and on the run loop; measures by name; what they lack and what they cost."""

import math

import pytest
import torch

import ntangent as nt
from ntangent import diagnose, optim
from ntangent._base.errors import ArgumentError, DtypeError, UnknownNameError
from ntangent.diagnose import Measure, Monitor, Snapshot
from ntangent.run import Callback, train

X = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
ENDS = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


def poisson(net):
    source = math.pi**2 * torch.sin(math.pi * X)
    return lambda: {
        "equation": (nt.laplacian(net, X) + source).T / math.sqrt(len(X)),
        "ends": net(ENDS).T,
    }


def network():
    return nt.MLP(1, 1, width=6, depth=2, dtype=torch.float64, generator=0)


def test_a_plain_torch_loop():
    net = network()
    residual, optimizer = poisson(net), torch.optim.Adam(net.parameters(), lr=1e-3)
    monitor = Monitor(every=5, measures=["snr", "spectrum", "information", "homogeneity", "adam"])
    for iteration in range(1, 12):
        optimizer.zero_grad()
        sum(r.square().sum() for r in residual().values()).backward()
        optimizer.step()
        before = [p.grad.clone() for p in net.parameters()]
        reading = monitor.record(
            iteration, net, residual,
            points={"equation": X, "ends": ENDS}, optimizer=optimizer,
            shared=["ends"], extent=((-1.0, 1.0),), independent=True,
        )  # fmt: skip
        assert (reading is None) == (iteration % 5 != 0)
        assert all(torch.equal(g, p.grad) for g, p in zip(before, net.parameters(), strict=True))
    assert monitor.iterations == [5, 10]
    values = monitor.readings[-1].values
    assert {
        "snr.snr",
        "snr.order_all",
        "snr.snr/2.weight",
        "spectrum.cutoff",
        "information.saturation/2",
    } <= set(values)
    assert {"homogeneity.bins/equation", "adam.snr", "adam.effective_step"} <= set(values)
    steps, orders = monitor.series("snr.order")
    assert steps == [5, 10] and all(0 < order <= 1 for order in orders)
    assert 0 < monitor.share <= 1 and monitor.seconds == sum(r.seconds for r in monitor.readings)
    assert "spectrum.values" not in monitor.readings[0].numbers
    with pytest.raises(ArgumentError, match="no series"):
        monitor.series("snr.colour")


def test_readings_equal_the_functions():
    net = network()
    residual = poisson(net)
    snapshot = diagnose.snapshot_of(1, net, residual, points={"equation": X, "ends": ENDS}, shared=["ends"])
    values = diagnose.measures["snr"](snapshot)
    r, j = snapshot.residuals_and_jacobian
    gradients = diagnose.batch_gradients(r, j, 40, snapshot.blocks)
    mask = diagnose.weight_entries(snapshot.layers, len(snapshot.theta))
    assert values["snr"] == pytest.approx(diagnose.gradient_snr(gradients, mask).snr)
    assert values["snr_all"] == pytest.approx(diagnose.gradient_snr(gradients).snr)
    spectrum = diagnose.measures["spectrum"](snapshot)
    torch.testing.assert_close(spectrum["values"], diagnose.singular_values(j))
    spatial = diagnose.measures["homogeneity"](snapshot)
    assert spatial["points/ends"] == pytest.approx(diagnose.residual_homogeneity(residual()["ends"].detach()))


def test_a_callback_of_the_run_loop():
    net = network()
    objective = diagnose.IndependentPoints(net, poisson(net))
    blocks, layers = objective.blocks({"equation": X}, ["ends"]), diagnose.layers_of(net)
    lines = []
    monitor = Monitor(every=4, measures=["snr", "spectrum"], sink=lines.append)
    assert isinstance(monitor, Callback)
    monitor.attach(lambda record: Snapshot(record.step, record.theta, layers, objective, blocks))
    outcome = train([optim.Adam(10, lr=1e-3)], objective, objective.theta(), callbacks=[monitor])
    assert monitor.iterations == [4, 8] and [line.iteration for line in lines] == [4, 8]
    # Watching changes nothing.
    again = train([optim.Adam(10, lr=1e-3)], objective, objective.theta())
    assert torch.equal(again.theta, outcome.theta)
    assert monitor.share == monitor.share  # the clock stops with the training


def test_losses_that_are_no_sums_of_squares():
    net = torch.nn.Linear(2, 1)
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    loss = lambda k: net(x[10 * k : 10 * k + 10]).abs().mean()  # noqa: E731
    reading = Monitor(1).record(1, net, batch_loss=(loss, 3))
    gradients = diagnose.gradients_of_batches(loss, list(net.parameters()), 3)
    assert reading.values["snr.snr_all"] == pytest.approx(diagnose.gradient_snr(gradients).snr)


def test_an_own_measure_is_one_object():
    norm = Measure("norm", "O(P)", ("theta",), lambda s: {"theta": float(s.theta.norm())})
    reading = Monitor(1, [norm]).read(Snapshot(3, torch.tensor([3.0, 4.0])))
    assert reading.values == {"norm.theta": 5.0}
    fewer = diagnose.snr_measure(5, name="snr5")
    assert Monitor(1, ["snr", fewer]).cost.keys() == {"snr", "snr5"}
    assert {"snr", "spectrum", "information", "homogeneity", "adam"} <= set(diagnose.measures)
    assert all(measure.cost and measure.name == name for name, measure in diagnose.measures.items())


def test_the_schedule_is_dense_at_first():
    due = [k for k in range(1, 501) if diagnose.EarlyAndEvery(100, 50, 200)(k)]
    assert due == [50, 100, 150, 200, 300, 400, 500]
    assert Monitor(diagnose.EarlyAndEvery()).due(10) and not Monitor(diagnose.EarlyAndEvery()).due(310)


def test_mistakes_are_explained():
    with pytest.raises(UnknownNameError, match="did you mean snr"):
        Monitor(1, ["snt"])
    with pytest.raises(DtypeError):
        Monitor(1, [print])
    with pytest.raises(ArgumentError, match="one name"):
        Monitor(1, ["snr", "snr"])
    with pytest.raises(ArgumentError):
        Monitor(0)
    bare = Snapshot(1, torch.zeros(2))
    for name, lacking in (
        ("information", "activations"),
        ("adam", "memory"),
        ("homogeneity", "objective and blocks"),
    ):
        with pytest.raises(ArgumentError, match=lacking):
            diagnose.measures[name](bare)
    with pytest.raises(ArgumentError, match="attach"):
        Monitor(1).on_step(type("R", (), {"step": 1, "theta": None})())
    net = network()
    with pytest.raises(ArgumentError, match="unknown option"):
        Monitor(1).record(1, net, poisson(net), colour="red")
    with pytest.raises(ArgumentError, match="no residual"):
        Monitor(1).record(1, net, poisson(net), shared=["nothing"])
