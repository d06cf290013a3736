"""Fitted estimators as files: the same numbers back, and files of anything else refused."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

import molml
from molml.io import ModelFileError, load_container, save_container
from molml.kinetics.files import load_estimator, save_estimator
from molml.kinetics.linear import PCA, TICA, VAMP


def trajectory(n_features=3):
    return np.cumsum(np.random.default_rng(0).normal(size=(200, n_features)), axis=0)


FITTED = [
    PCA(2).fit(trajectory()),
    PCA(whiten=True).fit(trajectory()),
    TICA(5, 2, scaling="commute_map", epsilon=1e-7).fit(trajectory()),
    TICA(np.int64(2), kinetic_variance=0.9).fit(trajectory()),
    TICA(3, reweight=True).fit([trajectory(), -trajectory()[::-1]]),
    VAMP(3).fit(trajectory()),
]


class Network(BaseEstimator):
    """An estimator with a network and attributes of every kind that a file can hold."""

    def __init__(self, width=4, tags=("a",)):
        self.width, self.tags = width, tags

    def fit(self):
        self.n_features_in_ = np.int64(3)
        self.history_, self.note_, self.nothing_ = [1.5, None, [2]], "ü", None
        self.flags_, self.single_ = np.array([True, False]), np.array(2.5)
        self.reversed_ = np.arange(4.0)[::-1]
        self.read_only_ = np.arange(3, dtype=np.int32)
        self.read_only_.setflags(write=False)
        self.names_ = np.array(["x", "y"])
        self._build_networks()
        self._cache, self.not_fitted = object(), object()
        return self

    def _build_networks(self):
        self.network_ = torch.nn.Sequential(torch.nn.Linear(self.n_features_in_, self.width), torch.nn.BatchNorm1d(4))


@pytest.mark.parametrize("fitted", FITTED, ids=str)
def test_the_same_numbers_back(fitted, tmp_path):
    path = tmp_path / "model.molml"
    fitted.save(path, {"features": ["φ", "ψ", "ω"], "timestep": 0.2})
    container = load_container(path)
    assert container.kind == type(fitted).__name__ and container.metadata["features"] == ["φ", "ψ", "ω"]
    found = type(fitted).from_container(container)
    assert found.get_params() == fitted.get_params()
    np.testing.assert_array_equal(found.transform(trajectory()), fitted.transform(trajectory()))
    assert found.score(trajectory()) == fitted.score(trajectory())
    stored = {name for name in vars(fitted) if name.endswith("_")}
    assert stored == {name for name in vars(found) if name.endswith("_")}
    for name in stored:
        np.testing.assert_array_equal(getattr(found, name), getattr(fitted, name))
        assert type(getattr(found, name)) is type(getattr(fitted, name))
    assert type(molml.load(path)) is type(fitted)
    again = tmp_path / "again.molml"
    found.save(again, {"features": ["φ", "ψ", "ω"], "timestep": 0.2})
    assert load_container(again).config == container.config


def test_moments_are_not_stored(tmp_path):
    FITTED[2].save(tmp_path / "model.molml")
    found = TICA.from_container(load_container(tmp_path / "model.molml"))
    with pytest.raises(ValueError, match="cannot go on from a file"):
        found.partial_fit(trajectory())
    np.testing.assert_array_equal(found.fit(trajectory()).components_, FITTED[2].components_)


def test_networks_and_every_kind_of_attribute(tmp_path):
    fitted = Network(np.int32(4)).fit()
    save_estimator(fitted, tmp_path / "model.molml")
    found = load_estimator(Network, load_container(tmp_path / "model.molml"))
    for key, value in fitted.network_.state_dict().items():
        assert torch.equal(found.network_.state_dict()[key], value)
    assert (found.history_, found.note_, found.nothing_) == (fitted.history_, "ü", None)
    for name in ("flags_", "single_", "reversed_", "read_only_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(fitted, name), strict=True)
    assert found.names_ == ["x", "y"] and found.width == 4 and found.n_features_in_ == 3
    assert not hasattr(found, "_cache") and not hasattr(found, "not_fitted")


def test_what_cannot_be_stored(tmp_path):
    path = tmp_path / "model.molml"
    with pytest.raises(NotFittedError):
        save_estimator(TICA(), path)
    fitted = TICA(2).fit(trajectory())
    fitted.components_ = np.full((2, 3), np.nan)
    with pytest.raises(ValueError, match="components_.*must be finite"):
        fitted.save(path)
    network = Network().fit()
    network.thing_ = object()
    with pytest.raises(TypeError, match="thing_"):
        save_estimator(network, path)
    with pytest.raises(OSError, match="folder that does not exist"):
        FITTED[0].save(tmp_path / "nowhere" / "model.molml")
    assert not path.exists()


@pytest.mark.parametrize(("kind", "others"), [(PCA, (2, 5)), (TICA, (0, 1, 5)), (VAMP, (0, 2, 3, 4))])
def test_files_of_others_are_refused(kind, others, tmp_path):
    for i in others:
        FITTED[i].save(tmp_path / "model.molml")
        (message,) = refusal(kind, load_container(tmp_path / "model.molml"))
        assert message == f"expected a file of a {kind.__name__}, got one of a {type(FITTED[i]).__name__}"


def refusal(kind, container):
    try:
        kind.from_container(container)
    except ModelFileError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize("fitted", FITTED, ids=str)
def test_files_that_lack_something_are_refused(fitted, tmp_path):
    fitted.save(tmp_path / "model.molml")
    whole = load_container(tmp_path / "model.molml")
    assert refusal(type(fitted), whole) == []
    needed = [name for name in whole.tensors]
    for name in needed:
        rest = {key: tensor for key, tensor in whole.tensors.items() if key != name}
        assert name in "".join(refusal(type(fitted), whole._replace(tensors=rest)))
        short = whole.tensors | {name: whole.tensors[name][:0]}
        assert refusal(type(fitted), whole._replace(tensors=short)) != []
    for name in ("params", "fitted"):
        rest = {key: value for key, value in whole.config.items() if key != name}
        assert refusal(type(fitted), whole._replace(config=rest)) != []
    without = whole.config | {"fitted": {}}
    assert "n_features_in_" in "".join(refusal(type(fitted), whole._replace(config=without)))


@pytest.mark.parametrize(
    "change",
    [
        {"fitted": {"n_features_in_": 3, "transform": 1}},
        {"fitted": {"n_features_in_": 3, "__class__": 1}},
        {"fitted": {"n_features_in_": 3, "_covariances": 1}},
        {"fitted": {"n_features_in_": 3, "lagtime": 9}},
        {"fitted": {"n_features_in_": "3"}},
        {"fitted": [1]},
        {"params": {"lagtime": 3, "colour": "red"}},
        {"params": [3]},
    ],
)
def test_foreign_settings_are_refused(change, tmp_path):
    FITTED[2].save(tmp_path / "model.molml")
    whole = load_container(tmp_path / "model.molml")
    (message,) = refusal(TICA, whole._replace(config=whole.config | change))
    assert "does not hold a whole TICA" in message


@pytest.mark.parametrize("name", ["transform", "_covariances", "lagtime", "transform.weight", "unknown_.weight"])
def test_foreign_tensors_are_refused(name, tmp_path):
    FITTED[2].save(tmp_path / "model.molml")
    whole = load_container(tmp_path / "model.molml")
    (message,) = refusal(TICA, whole._replace(tensors=whole.tensors | {name: torch.zeros(3)}))
    assert "does not hold a whole TICA" in message


def test_damaged_and_other_files_are_refused(tmp_path):
    path = tmp_path / "model.molml"
    FITTED[2].save(path)
    data = path.read_bytes()
    for position in (3, 200, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(ModelFileError):
            load_container(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelFileError):
        load_container(path)
    save_container(path, "checkpoint", {}, {"mean_": torch.zeros(3)}, {})
    with pytest.raises(ModelFileError, match="got one of a checkpoint"):
        TICA.from_container(load_container(path))
    save_container(path, "TICA", {}, {}, {})
    with pytest.raises(ModelFileError, match="whole TICA"):
        TICA.from_container(load_container(path))
    network = Network().fit()
    save_estimator(network, path)
    container = load_container(path)
    wide = container.config | {"params": {"width": 5}}
    with pytest.raises(ModelFileError, match="whole Network"):
        load_estimator(Network, container._replace(config=wide))
