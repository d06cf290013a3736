import json
import math
import sys
import warnings

import numpy as np
import pytest
import torch

from molml.training import (
    ArrayDataset,
    ResumeError,
    Term,
    Trainer,
    TrainingDivergedError,
    absolute_error,
    cosine,
    squared_error,
)
from molml.training import trainer as trainer_module


def mse(model, batch):
    inputs, targets = batch
    prediction = model(inputs)
    return {"y_mse": squared_error(prediction, targets), "y_mae": absolute_error(prediction, targets, weight=0.0)}


def regression(n=37, seed=0):
    rng = np.random.default_rng(seed)
    inputs = torch.tensor(rng.normal(size=(n, 3)))
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 0.3
    return ArrayDataset(inputs, targets + 0.1 * torch.tensor(rng.normal(size=(n, 1))))


def linear():
    layer = torch.nn.Linear(3, 1, dtype=torch.float64)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return layer


def solution(data):
    design = np.hstack([data.inputs.numpy(), np.ones((len(data), 1))])
    return np.linalg.lstsq(design, data.targets.numpy(), rcond=None)[0].ravel()


def weights_of(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()


def adam(model, lr=0.05):
    return torch.optim.Adam(model.parameters(), lr=lr)


# ---- optimisers ------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1), 400),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8), 200),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.05), 800),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.0), 800),
    "lbfgs": (lambda p: torch.optim.LBFGS(p, tolerance_change=1e-13, line_search_fn="strong_wolfe"), 3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_linear_regression_converges_to_least_squares(name):
    make, epochs = OPTIMIZERS[name]
    data, model = regression(), linear()
    Trainer(model, mse, make(model.parameters()), batch_size=len(data), max_epochs=epochs).fit(data)
    np.testing.assert_allclose(weights_of(model), solution(data), rtol=0, atol=1e-6)


def test_mini_batches_with_a_decaying_rate_converge_too():
    data, model = regression(), linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    Trainer(model, mse, optimizer, batch_size=8, max_epochs=300, lr_schedule=cosine()).fit(data)
    np.testing.assert_allclose(weights_of(model), solution(data), rtol=0, atol=1e-3)


class Parabola(torch.nn.Module):
    """½ k w², whose gradient descent is known in closed form."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))


def half_square(model, batch):
    return {"energy": Term(0.5 * model.w**2 * len(batch[0]), len(batch[0]))}


def point(n=1):
    return ArrayDataset(torch.zeros(n), torch.zeros(n))


def test_momentum_follows_the_closed_form():
    lr, mu, n = 0.1, 0.5, 12
    model = Parabola()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=mu)
    Trainer(model, half_square, optimizer, batch_size=1, max_epochs=n).fit(point(), point())
    # w_{t+1} = (1 + mu - lr) w_t - mu w_{t-1}, solved by the eigenvalues of the recurrence
    first, second = np.roots([1, -(1 + mu - lr), mu]).astype(complex)
    a = (1 - lr - second) / (first - second)
    expected = (a * first**n + (1 - a) * second**n).real
    values = [1.0, 1.0 - lr]
    for _ in range(n - 1):
        values.append((1 + mu - lr) * values[-1] - mu * values[-2])
    assert values[-1] == pytest.approx(expected, rel=1e-10)
    # the best weights are those of the smallest |w| on the way
    assert model.w.item() == pytest.approx(min(values[1:], key=abs), rel=1e-12)


def test_lbfgs_solves_a_quadratic_in_one_call():
    data, model = regression(), linear()
    tolerances = {"max_iter": 30, "tolerance_grad": 1e-12, "tolerance_change": 1e-15}
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", **tolerances)
    history = Trainer(model, mse, optimizer, batch_size=len(data), max_epochs=1).fit(data)
    np.testing.assert_allclose(weights_of(model), solution(data), rtol=0, atol=1e-8)
    assert history[0]["batches"] == 1


def test_a_reported_training_loss_is_that_before_the_step():
    data, model = regression(), linear()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=30)
    history = Trainer(model, mse, optimizer, batch_size=len(data), max_epochs=1).fit(data)
    assert history[0]["train_y_mse"] == pytest.approx(data.targets.square().mean().item(), rel=1e-12)


@pytest.mark.parametrize("clip_norm", [0.25, 100.0])
def test_gradients_longer_than_clip_norm_are_scaled_down(clip_norm):
    model = Parabola()
    trainer = Trainer(
        model,
        half_square,
        torch.optim.SGD(model.parameters(), lr=0.1),
        batch_size=1,
        max_epochs=1,
        clip_norm=clip_norm,
    )
    trainer.fit(point(), point())
    assert model.w.item() == pytest.approx(1 - 0.1 * min(1.0, clip_norm), rel=1e-5)


def test_clipping_happens_in_every_evaluation_of_lbfgs():
    model = Parabola()
    seen = []

    class Spy(torch.optim.LBFGS):
        def step(self, closure):
            def spied():
                value = closure()
                seen.append(model.w.grad.item())
                return value

            return super().step(spied)

    optimizer = Spy(model.parameters(), lr=0.1, max_iter=4)
    Trainer(model, half_square, optimizer, batch_size=1, max_epochs=1, clip_norm=0.5).fit(point())
    assert len(seen) == 4
    assert max(map(abs, seen)) <= 0.5


def test_scheduler_is_stepped_after_every_step():
    model = Parabola()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    trainer = Trainer(model, half_square, optimizer, scheduler=scheduler, batch_size=2, max_epochs=2)
    history = trainer.fit(point(7), point())
    # 4 steps per epoch: rates 0.1 0.1 0.1 0.05 | 0.05 0.05 0.025 0.025
    assert [record["lr"] for record in history] == pytest.approx([0.05, 0.025])
    expected = 0.9**3 * 0.95**3 * 0.975**2
    assert model.w.item() == pytest.approx(expected, rel=1e-12)


def test_lr_schedule_multiplies_every_groups_rate():
    model = linear()
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.01}]
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    Trainer(model, mse, Spy(groups), lr_schedule=lambda f: 1 - f, batch_size=20, max_epochs=2).fit(regression())
    np.testing.assert_allclose(seen, np.outer([1.0, 0.75, 0.5, 0.25], [0.1, 0.01]))


def averages_of_a_descent(lr, horizon, n):
    """Moving averages of (1 - lr)^t for t = 0 … n."""
    average, found = 1.0, [1.0]
    for step in range(1, n + 1):
        part = min(1.0, max(1 / horizon, 10 / (step + 9)))
        average = (1 - part) * average + part * (1 - lr) ** step
        found.append(average)
    return found


# three steps an epoch; the last horizon is longer than the run, which then forgets its start by the rule alone
@pytest.mark.parametrize("average_epochs", [0.1, 2.0, 100.0])
def test_the_moving_average_of_the_weights_is_validated_and_kept(average_epochs):
    lr, model = 0.05, Parabola()
    trainer = Trainer(
        model,
        half_square,
        torch.optim.SGD(model.parameters(), lr=lr),
        batch_size=1,
        max_epochs=12,
        average_epochs=average_epochs,
    )
    history = trainer.fit(point(3), point())
    expected = averages_of_a_descent(lr, 3 * average_epochs, 36)
    found = [record["valid_energy"] for record in history]
    np.testing.assert_allclose(found, 0.5 * np.square(expected[3::3]), rtol=1e-12)
    assert model.w.item() == pytest.approx(expected[-1], rel=1e-12)
    # training itself goes on from the weights, not from their average
    own = 0.5 * (1 - lr) ** (2 * np.arange(36))
    np.testing.assert_allclose([record["train_energy"] for record in history], own.reshape(12, 3).mean(1), rtol=1e-12)


def test_the_average_is_nearer_to_the_minimum_than_weights_that_circle_it():
    data = regression(200)
    distance = []
    for average_epochs in (None, 10.0):
        model = linear()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        trainer = Trainer(model, mse, optimizer, batch_size=2, max_epochs=40, average_epochs=average_epochs)
        trainer.fit(data)
        distance.append(np.linalg.norm(weights_of(model) - solution(data)))
    assert distance[1] < 0.5 * distance[0]


def test_what_an_average_stops_by_is_its_own_best():
    model = Parabola()
    trainer = Trainer(
        model,
        scripted([5.0, 3.0, 4.0, 2.0, 2.0, 9.0, 2.5]),
        torch.optim.SGD(model.parameters(), lr=1.0),
        batch_size=1,
        max_epochs=100,
        patience=3,
        average_epochs=2.0,
    )
    history = trainer.fit(point(), point())
    assert (history.stopped_by, history.best_epoch, len(history)) == ("patience", 4, 7)
    # the weight is 1 - t; all parts of the first four steps are 10 / (step + 9)
    average = 1.0
    for step in range(1, 5):
        average += 10 / (step + 9) * (1 - step - average)
    assert model.w.item() == pytest.approx(average, rel=1e-12)


def test_buffers_are_not_averaged():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)).double()
    Trainer(model, mse, adam(model), batch_size=5, max_epochs=2, average_epochs=1.0).fit(regression(20))
    plain = torch.nn.BatchNorm1d(3).double()
    for _ in range(2):
        for _ in range(4):
            plain(regression(20).inputs[:5])
    assert model[0].num_batches_tracked.item() == plain.num_batches_tracked.item() == 8


def test_parameters_outside_the_optimiser_stay():
    model = linear()
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    Trainer(model, mse, optimizer, batch_size=10, max_epochs=2).fit(regression())
    assert model.bias.item() == 0.0
    assert model.weight.abs().sum() > 0


def test_it_can_memorise_ten_samples():
    from molml.nn import MLP

    rng = np.random.default_rng(1)
    data = ArrayDataset(torch.tensor(rng.normal(size=(10, 3))), torch.tensor(rng.normal(size=(10, 1))))
    model = MLP(3, [32], 1, activation="tanh", seed=0, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    Trainer(model, mse, optimizer, batch_size=10, max_epochs=5).fit(data)
    assert (model(data.inputs) - data.targets).abs().max() < 1e-4


# ---- loss, weights, modes --------------------------------------------------------------------------------------------


def two_terms(model, batch):
    prediction = model(batch[0])
    return {"a": squared_error(prediction, batch[1]), "b": absolute_error(prediction, batch[1], weight=0.5)}


def test_weight_schedule_rules_training_and_its_end_rules_reports():
    seen = []

    def schedule(fraction):
        seen.append(fraction)
        return {"a": 1 - fraction}

    data, model = regression(20), linear()
    trainer = Trainer(model, two_terms, adam(model), weight_schedule=schedule, batch_size=10, max_epochs=2)
    history = trainer.fit(data, data)
    assert [f for f in seen if f < 1] == [0.0, 0.25, 0.5, 0.75]
    for record in history:
        assert record["valid_objective"] == pytest.approx(0.5 * record["valid_b"], rel=1e-12)
        assert record["train_objective"] == pytest.approx(0.5 * record["train_b"], rel=1e-12)


def test_without_a_schedule_the_terms_weights_count():
    data, model = regression(20), linear()
    (record,) = Trainer(model, two_terms, adam(model), batch_size=10, max_epochs=1).fit(data, data)
    assert record["valid_objective"] == pytest.approx(record["valid_a"] + 0.5 * record["valid_b"], rel=1e-12)


def test_evaluate_is_the_mean_over_all_items_whatever_the_batches():
    data, model = regression(), linear()
    whole, parts = (
        Trainer(model, mse, adam(model), batch_size=size, max_epochs=1).evaluate(data) for size in (len(data), 5)
    )
    expected = data.targets.square().mean().item()
    assert whole["y_mse"] == pytest.approx(expected, rel=1e-13)
    assert whole["y_rmse"] == pytest.approx(math.sqrt(expected), rel=1e-13)
    assert parts == pytest.approx(whole, rel=1e-13)
    assert whole["objective"] == whole["y_mse"]


def forces(model, batch):
    x = batch[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=model.training)
    return {"slope_mse": squared_error(slope, batch[1])}


def test_losses_may_differentiate_by_inputs_also_in_evaluations_and_under_no_grad():
    data = ArrayDataset(torch.randn(9, 3, dtype=torch.float64), torch.ones(9, 3, dtype=torch.float64))
    model = linear()
    with torch.no_grad():
        trainer = Trainer(model, forces, adam(model, 0.1), batch_size=4, max_epochs=200)
        trainer.fit(data, data)
        assert trainer.evaluate(data)["slope_rmse"] < 1e-2


class Modes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = linear()
        self.seen = []

    def forward(self, x):
        self.seen.append(self.training)
        return self.line(x)


def test_modes_are_training_then_evaluation():
    model = Modes()
    Trainer(model, mse, adam(model), batch_size=10, max_epochs=2).fit(regression(20), regression(10))
    assert model.seen == [True, True, False] * 2
    assert not model.training


def test_missing_labels_in_whole_batches_are_no_problem():
    def sparse(model, batch):
        known = torch.isfinite(batch[1])
        error = (model(batch[0]) - torch.nan_to_num(batch[1]))[known]
        return {"y_mse": Term(error.square().sum(), known.sum())}

    data = regression(12)
    data.targets[:9] = math.nan
    model = linear()
    history = Trainer(model, sparse, adam(model), batch_size=1, max_epochs=3).fit(data)
    rows = data.targets[9:].square().mean().item()
    assert history[0]["train_y_mse"] == pytest.approx(rows, rel=0.5)
    assert np.isfinite(weights_of(model)).all()


# ---- randomness ------------------------------------------------------------------------------------------------------


def trained(seed=0, **keywords):
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)).double()
    for i, parameter in enumerate(model.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(i))
    Trainer(model, mse, adam(model), batch_size=8, max_epochs=3, seed=seed, **keywords).fit(regression())
    return weights_of(model)


def test_same_seed_gives_the_same_bits_whatever_the_global_state():
    torch.manual_seed(1)
    one = trained()
    torch.manual_seed(2)
    np.testing.assert_array_equal(one, trained())


def test_other_seeds_give_other_weights():
    assert not np.allclose(trained(seed=0), trained(seed=1))


def test_global_random_state_is_left_alone():
    data, trainer = regression(), make(None)
    before = torch.get_rng_state()
    trainer.fit(data, data)
    trainer.evaluate(data)
    assert torch.equal(before, torch.get_rng_state())


class Noting:
    """Data set that notes what was asked for."""

    def __init__(self, n):
        self.n, self.seen = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.seen.append(index)
        return torch.ones(3, dtype=torch.float64)

    def collate(self, items):
        return torch.stack(items), torch.ones(len(items), 1, dtype=torch.float64)


def test_every_epoch_visits_every_item_once_in_another_order():
    data, model = Noting(11), linear()
    Trainer(model, mse, adam(model), batch_size=4, max_epochs=2).fit(data)
    first, second = data.seen[:11], data.seen[11:]
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != second
    assert {type(i) for i in data.seen} == {int}


# ---- stopping --------------------------------------------------------------------------------------------------------


def scripted(values):
    """Loss whose evaluations follow a script, while training moves the weight by one per step."""
    remaining = iter(values)

    def loss(model, batch):
        return {"x": Term(model.w, 1) if model.training else Term(torch.tensor(next(remaining)) + 0 * model.w, 1)}

    return loss


def test_early_stopping_restores_the_best_weights():
    model = Parabola()
    trainer = Trainer(
        model,
        scripted([5.0, 3.0, 4.0, 2.0, 2.0, 9.0, 2.5]),
        torch.optim.SGD(model.parameters(), lr=1.0),
        batch_size=1,
        max_epochs=100,
        patience=3,
    )
    history = trainer.fit(point(), point())
    assert (history.stopped_by, history.best_epoch, len(history)) == ("patience", 4, 7)
    assert model.w.item() == 1.0 - 4


def test_the_last_weights_can_be_kept():
    model = Parabola()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = Trainer(model, scripted([5.0, 3.0, 4.0]), optimizer, batch_size=1, max_epochs=3, keep="last")
    assert trainer.fit(point(), point()).best_epoch == 3
    assert model.w.item() == 1.0 - 3


def test_without_validation_the_training_objective_decides():
    data, model = regression(), linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    history = Trainer(model, mse, optimizer, batch_size=37, max_epochs=30).fit(data)
    objectives = [record["train_objective"] for record in history]
    assert history.best_epoch == 1 + int(np.argmin(objectives))
    assert history.stopped_by == "max_epochs"
    assert "valid_objective" not in history[0]


class Clock:
    """Stands in for the time module: a second per call of the loss, and nothing else takes time."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def ticking(self, loss):
        def ticked(model, batch):
            self.now += 1.0
            return loss(model, batch)

        return ticked


@pytest.fixture
def clock(monkeypatch):
    stand_in = Clock()
    monkeypatch.setattr(trainer_module, "time", stand_in)
    return stand_in


def test_minutes_stop_within_an_epoch_and_validate(clock):
    model = linear()
    trainer = Trainer(model, clock.ticking(mse), adam(model), batch_size=1, max_epochs=10, minutes=0.1)
    history = trainer.fit(regression(500), regression(2))
    assert history.stopped_by == "minutes"
    assert [(record["batches"], record["seconds"]) for record in history] == [(6, 8.0)]
    assert "valid_objective" in history[0]
    assert weights_of(model).any()


def test_fraction_of_a_timed_run_is_that_of_the_clock(clock):
    fractions = []
    model = linear()
    trainer = Trainer(
        model,
        clock.ticking(mse),
        adam(model),
        lr_schedule=lambda fraction: fractions.append(fraction) or 1.0,
        batch_size=20,
        max_epochs=10**6,
        minutes=0.1,
    )
    trainer.fit(regression())
    assert fractions == pytest.approx([i / 6 for i in range(6)])


def test_time_before_a_resume_counts(clock, tmp_path):
    settings = {"minutes": 0.2, "max_epochs": 1000, "patience": None}
    with pytest.raises(StopTest):
        make(tmp_path, loss=clock.ticking(crashing_after(7)), **settings).fit(regression())
    clock.now = 5.0
    history = make(tmp_path, loss=clock.ticking(mse), **settings).fit(regression(), resume=True)
    assert history.stopped_by == "minutes"
    # five of the twelve seconds were left, and the one of the crash was lost
    assert clock.now == 5.0 + 5
    assert history[-1]["seconds"] == 12.0


# ---- divergence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200])
def test_a_bad_item_is_named_within_one_step(value, tmp_path):
    data = regression(40)
    data.targets[17] = value
    model = linear()
    trainer = Trainer(model, mse, adam(model), batch_size=5, max_epochs=3, directory=tmp_path, checkpoint_seconds=0)
    with pytest.raises(TrainingDivergedError, match="diverged in epoch 1, batch") as caught:
        trainer.fit(data)
    error = caught.value
    assert error.epoch == 1
    assert 17 in error.indices
    assert len(error.indices) == 5
    assert f"batch {error.batch}:" in str(error)
    assert "17" in str(error)
    assert np.isfinite(weights_of(model)).all()
    # the checkpoint is that of the step before
    from molml.training.checkpoint import load_checkpoint

    state = load_checkpoint(tmp_path / "checkpoint.molml", trainer._settings)
    assert state["batch"] == error.batch - 1
    np.testing.assert_array_equal(torch.cat([v.reshape(-1) for v in state["model"].values()]), weights_of(model))


def test_a_gradient_can_be_nan_while_the_loss_is_finite():
    def root(model, batch):
        # d/dw sqrt(w²) at w = 0 is 0/0
        return {"x": Term((model.weight**2).sqrt().sum() + model.bias.sum(), 1)}

    model = linear()
    with pytest.raises(TrainingDivergedError, match="norm of its gradient nan"):
        Trainer(model, root, adam(model), batch_size=5, max_epochs=1).fit(regression(5))


def test_a_finite_outlier_passes():
    # the control: large is not infinite
    data = regression(10)
    data.targets[3] = 1e100
    model = linear()
    Trainer(model, mse, adam(model), batch_size=5, max_epochs=1).fit(data)


def test_a_long_list_of_items_is_shortened_in_the_message_only():
    data = regression(200)
    data.targets[17] = math.nan
    model = linear()
    with pytest.raises(TrainingDivergedError, match=r"… \(200 in all\)") as caught:
        Trainer(model, mse, adam(model), batch_size=200, max_epochs=1).fit(data)
    assert sorted(caught.value.indices) == list(range(200))


def test_validation_data_are_guarded_too():
    valid = regression(12)
    valid.targets[7] = math.nan
    model = linear()
    with pytest.raises(TrainingDivergedError, match="after epoch 1 .* in batch 2") as caught:
        Trainer(model, mse, adam(model), batch_size=5, max_epochs=1).fit(regression(5), valid)
    assert caught.value.indices == [5, 6, 7, 8, 9]
    np.testing.assert_array_equal(weights_of(model), 0)


def test_weights_that_overflow_in_the_last_step_are_noticed():
    model = linear()
    trainer = Trainer(model, mse, torch.optim.SGD(model.parameters(), lr=1e308), batch_size=40, max_epochs=1)
    data = regression(40)
    data.targets.mul_(1e3)
    with pytest.raises(TrainingDivergedError, match="weight became infinite"):
        trainer.fit(data)
    np.testing.assert_array_equal(weights_of(model), 0)


def test_exploding_weights_are_not_saved(tmp_path):
    data = regression(40)
    data.targets.mul_(1e3)
    model = linear()
    trainer = Trainer(
        model,
        mse,
        torch.optim.SGD(model.parameters(), lr=1e308),
        batch_size=20,
        max_epochs=1,
        directory=tmp_path,
        checkpoint_seconds=0,
    )
    with pytest.raises(TrainingDivergedError, match="batch 2"):
        trainer.fit(data)
    assert np.isfinite(weights_of(model)).all()


def test_metrics_may_be_nan_and_are_null_in_files(tmp_path):
    def odd(model, batch):
        return mse(model, batch) | {"r2": Term(torch.tensor(math.nan), 1, 0.0), "none": Term(torch.tensor(0.0), 0)}

    model = linear()
    trainer = Trainer(model, odd, adam(model), batch_size=5, max_epochs=2, directory=tmp_path, checkpoint_seconds=0)
    history = trainer.fit(regression(10), regression(5))
    assert history[0]["train_r2"] is None
    assert history[0]["valid_none"] is None
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == history


# ---- files and resume ------------------------------------------------------------------------------------------------


def make(directory, **changes):
    """A run with dropout, momentum, schedule and early stopping, and its data."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Dropout(0.2), torch.nn.Linear(6, 1)).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=changes.pop("lr", 0.02))
    settings = {
        "batch_size": 8,
        "max_epochs": 4,
        "patience": 3,
        "clip_norm": 1.0,
        "checkpoint_seconds": 0.0,
        "config": {"model": {"hidden": [6]}},
        "data_hash": "abc",
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
    }
    return Trainer(model, changes.pop("loss", mse), optimizer, directory=directory, **(settings | changes))


def without_clock(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


class StopTest(Exception):
    """A crash."""


def crashing_after(n_calls):
    calls = 0

    def loss(model, batch):
        nonlocal calls
        calls += 1
        if calls > n_calls:
            raise StopTest
        return mse(model, batch)

    return loss


# 5 training and 2 validation batches per epoch: in a first step, between steps, in a validation, in the last
@pytest.mark.parametrize("average_epochs", [None, 1.5])
@pytest.mark.parametrize("n_calls", [0, 1, 3, 5, 6, 7, 8, 20, 27])
def test_a_run_that_crashed_continues_to_the_same_bits(n_calls, average_epochs, tmp_path):
    data, valid = regression(), regression(9, seed=1)
    straight = make(tmp_path / "straight", average_epochs=average_epochs)
    expected = straight.fit(data, valid)
    with pytest.raises(StopTest):
        make(tmp_path / "run", average_epochs=average_epochs, loss=crashing_after(n_calls)).fit(data, valid)
    resumed = make(tmp_path / "run", average_epochs=average_epochs)
    history = resumed.fit(data, valid, resume=True)
    np.testing.assert_array_equal(weights_of(resumed.model), weights_of(straight.model))
    assert without_clock(history) == without_clock(expected)
    assert (history.best_epoch, history.stopped_by) == (expected.best_epoch, expected.stopped_by)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


def test_resuming_twice_still_gives_the_same_bits(tmp_path):
    data = regression()
    straight = make(tmp_path / "straight")
    straight.fit(data)
    for n_calls in (3, 4, 9):
        with pytest.raises(StopTest):
            make(tmp_path / "run", loss=crashing_after(n_calls)).fit(data, resume=True)
    resumed = make(tmp_path / "run")
    resumed.fit(data, resume=True)
    np.testing.assert_array_equal(weights_of(resumed.model), weights_of(straight.model))


def test_lbfgs_and_schedules_resume_exactly(tmp_path):
    data = regression()

    def run(name, loss=mse, resume=False):
        model = linear()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
        schedules = {"lr_schedule": cosine(warmup=0.3), "weight_schedule": lambda f: {"y_mae": f}}
        trainer = Trainer(
            model,
            loss,
            optimizer,
            batch_size=20,
            max_epochs=4,
            directory=tmp_path / name,
            checkpoint_seconds=0,
            **schedules,
        )
        trainer.fit(data, resume=resume)
        return weights_of(model)

    with pytest.raises(StopTest):
        run("run", crashing_after(14))
    np.testing.assert_array_equal(run("run", resume=True), run("straight"))


def test_a_finished_run_is_not_begun_again(tmp_path):
    trainer = make(tmp_path)
    history = trainer.fit(regression())
    again = make(tmp_path, loss=crashing_after(0))
    assert again.fit(regression(), resume=True) == history
    np.testing.assert_array_equal(weights_of(again.model), weights_of(trainer.model))


def test_resume_without_a_checkpoint_begins(tmp_path):
    assert len(make(tmp_path / "new").fit(regression(), resume=True)) == 4


def test_without_resume_an_old_run_is_replaced(tmp_path):
    make(tmp_path).fit(regression())
    assert len(make(tmp_path, max_epochs=1).fit(regression())) == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


CHANGES = {
    "lr": (0.03, r"parameters\.0\.lr: 0.02 in the checkpoint, 0.03 now"),
    "batch_size": (9, "batch_size: 8 in the checkpoint, 9 now"),
    "seed": (1, "seed: 0 in the checkpoint, 1 now"),
    "max_epochs": (5, "max_epochs: 4 in the checkpoint, 5 now"),
    "average_epochs": (2.0, "average_epochs: None in the checkpoint, 2.0 now"),
    "minutes": (1.0, "minutes: None in the checkpoint, 1.0 now"),
    "scheduler": (None, "scheduler.class: CosineAnnealingLR in the checkpoint, absent now"),
    "config": ({"model": {"hidden": [7]}}, r"config\.model\.hidden: \[6\] in the checkpoint, \[7\] now"),
    "data_hash": ("abd", "data_hash: abc in the checkpoint, abd now"),
    "weight_schedule": (lambda f: {}, r"schedules: \[\] in the checkpoint, \['weight_schedule'\] now"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_configuration_is_refused_by_name(name, tmp_path):
    value, message = CHANGES[name]
    make(tmp_path).fit(regression())
    with pytest.raises(ResumeError, match=message) as caught:
        make(tmp_path, **{name: value}).fit(regression(), resume=True)
    other = "data_hash" if name != "data_hash" else "config"
    assert f"\n  {other}" not in str(caught.value)


def test_changed_numbers_of_items_are_refused(tmp_path):
    make(tmp_path).fit(regression(37), regression(5))
    with pytest.raises(ResumeError, match=r"n_train: 37 .*, 36 now\n  n_valid: 5 in the checkpoint, 0 now"):
        make(tmp_path).fit(regression(36), resume=True)


def test_a_changed_model_is_refused(tmp_path):
    make(tmp_path).fit(regression())
    model = torch.nn.Sequential(torch.nn.Linear(3, 7), torch.nn.Linear(7, 1)).double()
    with pytest.raises(ResumeError, match=r"model\.0\.weight: torch.float64 \(6, 3\) .*, torch.float64 \(7, 3\) now"):
        Trainer(model, mse, adam(model), batch_size=8, max_epochs=4, directory=tmp_path).fit(regression(), resume=True)


def test_progress_and_place_may_change(tmp_path):
    with pytest.raises(StopTest):
        make(tmp_path / "here", loss=crashing_after(7)).fit(regression())
    (tmp_path / "here").rename(tmp_path / "there")
    trainer = make(tmp_path / "there", checkpoint_seconds=5.0, description="again", progress=False)
    assert len(trainer.fit(regression(), resume=True)) == 4


def test_another_number_of_threads_is_told(tmp_path):
    make(tmp_path).fit(regression())
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with pytest.warns(
            UserWarning, match=f"to rounding only: threads: {before} in the checkpoint, {before + 1} now"
        ):
            make(tmp_path).fit(regression(), resume=True)
    finally:
        torch.set_num_threads(before)


def test_checkpoints_are_written_as_often_as_asked(clock, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(trainer_module, "save_checkpoint", lambda path, settings, state: written.append(state["batch"]))
    make(tmp_path, checkpoint_seconds=0.0).fit(regression())
    # at the start, after each of the five steps of four epochs, after each epoch
    assert written == [0] + [1, 2, 3, 4, 5, 0] * 4
    written.clear()
    make(tmp_path, loss=clock.ticking(mse), checkpoint_seconds=2.0).fit(regression())
    assert written == [0] + [2, 4, 0] * 4


@pytest.mark.parametrize(("cost", "expected"), [(0.4, [1, 2, 3, 4, 5]), (0.6, [1, 3, 5])])
def test_dear_checkpoints_are_not_written_after_short_epochs(cost, expected, clock, tmp_path, monkeypatch):
    written = []

    def slow(path, settings, state):
        clock.now += cost
        written.append(state["epoch"])

    monkeypatch.setattr(trainer_module, "save_checkpoint", slow)
    make(tmp_path, loss=clock.ticking(mse), checkpoint_seconds=1e9).fit(regression())
    assert written == expected


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(None).fit(regression())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    from molml import io

    data = regression()
    with pytest.raises(StopTest):
        make(tmp_path, loss=crashing_after(7)).fit(data)
    before = (tmp_path / "checkpoint.molml").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path).fit(data, resume=True)
    assert (tmp_path / "checkpoint.molml").read_bytes() == before
    monkeypatch.undo()
    assert len(make(tmp_path).fit(data, resume=True)) == 4


# ---- progress bar ----------------------------------------------------------------------------------------------------


def test_quiet_when_stderr_is_no_terminal(capsys):
    make(None).fit(regression())
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_bar_shows_name_losses_and_the_end(capsys):
    make(None, progress=True, description="fitting").fit(regression(), regression(4))
    text = capsys.readouterr().err
    assert "fitting: 100%" in text
    assert "train=" in text.replace(" ", "")
    assert "valid=" in text.replace(" ", "")


def test_bar_in_a_terminal_unless_switched_off(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    make(None).fit(regression())
    assert "training: 100%" in capsys.readouterr().err
    make(None, progress=False).fit(regression())
    assert capsys.readouterr().err == ""


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 2.5),
        ("max_epochs", 0),
        ("patience", 0),
        ("seed", -1),
        ("clip_norm", 0.0),
        ("clip_norm", math.nan),
        ("minutes", 0.0),
        ("average_epochs", 0.0),
        ("average_epochs", math.inf),
        ("checkpoint_seconds", -1.0),
        ("keep", "first"),
    ],
)
def test_settings_out_of_range_are_refused(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        make(tmp_path, **{name: value})


def test_the_last_weights_are_not_waited_for(tmp_path):
    with pytest.raises(ValueError, match="patience"):
        make(tmp_path, keep="last")


@pytest.mark.parametrize("config", [{"a": {1, 2}}, {"a": math.nan}])
def test_config_must_be_json_able(config, tmp_path):
    with pytest.raises(TypeError, match="config must be JSON-able"):
        make(tmp_path, config=config)


def test_optimizer_of_another_model_is_refused():
    with pytest.raises(ValueError, match="parameters of the model only, got 2 others"):
        Trainer(linear(), mse, adam(linear()), batch_size=1, max_epochs=1)


def test_scheduler_of_another_optimizer_is_refused():
    model = linear()
    scheduler = torch.optim.lr_scheduler.StepLR(adam(model), 1)
    with pytest.raises(ValueError, match="scheduler must be made for the optimizer"):
        Trainer(model, mse, adam(model), scheduler=scheduler, batch_size=1, max_epochs=1)


def test_scheduler_that_wants_a_loss_is_refused():
    model = linear()
    optimizer = adam(model)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(TypeError, match="ReduceLROnPlateau"):
        Trainer(model, mse, optimizer, scheduler=scheduler, batch_size=1, max_epochs=1)


def test_two_schedules_of_the_rate_are_refused():
    with pytest.raises(ValueError, match="give one of them"):
        make(None, lr_schedule=cosine())


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_empty_data_are_refused(sizes):
    train, valid = map(regression, sizes)
    with pytest.raises(ValueError, match="must not be empty"):
        make(None).fit(train, valid)


def test_empty_data_cannot_be_evaluated():
    with pytest.raises(ValueError, match="must not be empty"):
        make(None).evaluate(regression(0))


def test_resume_needs_a_directory():
    with pytest.raises(ValueError, match="resume needs the directory"):
        make(None).fit(regression(), resume=True)


@pytest.mark.parametrize(
    "loss",
    [
        lambda model, batch: model(batch[0]).sum(),
        lambda model, batch: {"x": model(batch[0]).sum()},
        lambda model, batch: {"x": Term(model(batch[0]), 1)},
        lambda model, batch: {"x": Term(1.0, 1)},
    ],
)
def test_losses_of_another_kind_are_refused(loss):
    with pytest.raises(TypeError, match="dict of name to Term|Tensor of shape"):
        make(None, loss=loss).fit(regression())


def test_losses_without_parameters_are_refused():
    with pytest.raises(ValueError, match="must depend on a parameter"):
        make(None, loss=lambda model, batch: {"x": Term(batch[0].sum(), 1)}).fit(regression())


def test_terms_must_not_come_and_go():
    def fickle(model, batch):
        return mse(model, batch) | ({"extra": Term(torch.tensor(0.0), 1)} if len(batch[0]) < 8 else {})

    with pytest.raises(ValueError, match="same terms for every batch, got y_mse, y_mae, extra after y_mse, y_mae"):
        make(None, loss=fickle).fit(regression())


def test_unknown_names_in_a_weight_schedule_are_refused():
    with pytest.raises(ValueError, match="got z"):
        make(None, weight_schedule=lambda f: {"z": 1.0}).fit(regression())


def test_no_warnings_in_an_ordinary_run(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tmp_path).fit(regression(), regression(4))
