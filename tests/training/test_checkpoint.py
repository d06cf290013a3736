import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molml.io import ModelFileError, save_container
from molml.training import ResumeError
from molml.training.checkpoint import differences, load_checkpoint, save_checkpoint

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(tree=trees)
def test_any_tree_comes_back_exactly(tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("tree") / "c.molml"
    save_checkpoint(path, {}, {"tree": tree})
    # repr tells 1 from 1.0 and True, a list from a tuple, and is equal for nan
    assert repr(load_checkpoint(path, {})["tree"]) == repr(tree)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5, dtype=torch.float64),
        torch.zeros(0, 3),
        torch.arange(6).reshape(2, 3).T,
        torch.tensor([True, False]),
        torch.tensor([[math.nan, -math.inf], [-0.0, 5e-324]], dtype=torch.float64),
        torch.tensor([math.inf], dtype=torch.float32),
        torch.tensor(math.nan, dtype=torch.float64),
    ],
)
def test_tensors_come_back_in_every_bit(tensor, tmp_path):
    save_checkpoint(tmp_path / "c.molml", {}, {"a": [tensor, tensor]})
    for copy in load_checkpoint(tmp_path / "c.molml", {})["a"]:
        assert copy.dtype == tensor.dtype
        assert copy.shape == tensor.shape
        assert copy.contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()


def quadratic(optimizer, weight):
    def closure():
        optimizer.zero_grad()
        value = ((weight - torch.arange(3.0, dtype=torch.float64)) ** 4).sum()
        value.backward()
        return value

    return closure


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=3, line_search_fn="strong_wolfe"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_continue_bit_by_bit(name, tmp_path):
    def run(n, state=None):
        weight = torch.nn.Parameter(torch.full((3,), 0.3, dtype=torch.float64))
        optimizer = OPTIMIZERS[name]([weight])
        for saved in [state] * (state is not None):
            weight.data.copy_(saved["weight"])
            optimizer.load_state_dict(saved["optimizer"])
        for _ in range(n):
            optimizer.step(quadratic(optimizer, weight))
        return weight, optimizer

    weight, optimizer = run(5)
    save_checkpoint(tmp_path / "c.molml", {}, {"weight": weight, "optimizer": optimizer.state_dict()})
    resumed, _ = run(4, load_checkpoint(tmp_path / "c.molml", {}))
    straight, _ = run(9)
    assert torch.equal(resumed, straight)


SCHEDULERS = {
    "step": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7, 7]),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=12),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: 1 / (1 + n)),
    "sequence": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.ConstantLR(o, 0.5, 4), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
        milestones=[6],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_continue_bit_by_bit(name, tmp_path):
    def run(n, path=None):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.3)
        scheduler = SCHEDULERS[name](optimizer)
        for state in [load_checkpoint(p, {}) for p in [path] * (path is not None)]:
            optimizer.load_state_dict(state["optimizer"])
            scheduler.load_state_dict(state["scheduler"])
        for _ in range(n):
            optimizer.step()
            scheduler.step()
        return optimizer, scheduler

    optimizer, scheduler = run(5)
    path = tmp_path / "c.molml"
    save_checkpoint(path, {}, {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()})
    assert run(5, path)[0].param_groups[0]["lr"] == run(10)[0].param_groups[0]["lr"]


def test_counters_stay_counters(tmp_path):
    save_checkpoint(tmp_path / "c.molml", {}, {"c": Counter([3, 3, 5])})
    copy = load_checkpoint(tmp_path / "c.molml", {})["c"]
    assert isinstance(copy, Counter)
    assert copy == Counter([3, 3, 5])


def test_other_objects_are_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] cannot be stored .* got set"):
        save_checkpoint(tmp_path / "c.molml", {}, {"a": [1, {2}]})


def test_differences_name_every_change():
    before = {"a": {"b": 1, "c": [1, [2]]}, "gone": None, "same": [0.1], "flag": True, "empty": {}}
    now = {"a": {"b": 2, "c": [1, (3,)]}, "new": "x", "same": (0.1,), "flag": 1, "empty": {}}
    assert differences(before, now) == [
        "a.b: 1 in the checkpoint, 2 now",
        "a.c: [1, [2]] in the checkpoint, [1, [3]] now",
        "gone: None in the checkpoint, absent now",
        "flag: True in the checkpoint, 1 now",
        "new: absent in the checkpoint, x now",
    ]


def test_no_differences_between_equals():
    assert differences({"a": [1, (2.0, None)]}, {"a": (1, [2.0, None])}) == []


def test_changed_settings_are_refused_by_name(tmp_path):
    save_checkpoint(tmp_path / "c.molml", {"lr": 0.1, "seed": 0}, {})
    with pytest.raises(ResumeError, match="lr: 0.1 in the checkpoint, 0.2 now") as caught:
        load_checkpoint(tmp_path / "c.molml", {"lr": 0.2, "seed": 0})
    assert "seed" not in str(caught.value)


def test_a_model_is_no_checkpoint(tmp_path):
    save_container(tmp_path / "c.molml", "LinearPotential", {}, {}, {})
    with pytest.raises(ResumeError, match="got a LinearPotential"):
        load_checkpoint(tmp_path / "c.molml", {})


def test_damage_is_refused(tmp_path):
    path = tmp_path / "c.molml"
    save_checkpoint(path, {}, {"a": torch.ones(8)})
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError):
        load_checkpoint(path, {})
