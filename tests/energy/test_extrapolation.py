"""Atoms outside the training range are flagged, and those inside are not."""

import pytest

from molml.energy import StructureDataset, fit
from molml.energy.extrapolation import ExtrapolationError, ExtrapolationWatch
from molml.energy.model import LinearPotential


@pytest.fixture(scope="module")
def data(emt_crystals):
    return StructureDataset(emt_crystals(20, symbols=("Cu", "Au"), repeat=(2, 1, 1)), cutoff=4.5)


@pytest.fixture(scope="module")
def potential(data):
    return fit(data, model="linear", n_functions=15)


def with_range(potential, element, column, low, high):
    """A copy that saw a function of an element only between two values."""
    copy = LinearPotential.from_container(_container(potential))
    getattr(copy, f"low_{element}")[column] = low
    getattr(copy, f"high_{element}")[column] = high
    return copy


def _container(potential):
    from molml.io import Container

    return Container("LinearPotential", potential.config, dict(potential.state_dict()), potential.metadata)


def flagged(potential, batch):
    watch = ExtrapolationWatch(potential, "raise")
    try:
        watch.look(batch, potential.predict(batch))
    except ExtrapolationError as error:
        return {(item.element, item.function) for item in error.extrapolations}
    return set()


@pytest.mark.parametrize("side", ["above", "below"])
def test_one_percent_outside_is_always_flagged(data, potential, side):
    item = data[3]
    features = potential.predict(item).features
    missed = []
    for e, number in enumerate(potential.elements):
        names = potential.features.names(["Cu", "Au"][e])
        for column, name in enumerate(names):
            values = features[e][:, column]
            low, high = (float(getattr(potential, f"{end}_{e}")[column]) for end in ("low", "high"))
            width = high - low
            if side == "above":
                changed = with_range(potential, e, column, low - 1.0, float(values.max()))
                width = getattr(changed, f"high_{e}")[column] - getattr(changed, f"low_{e}")[column]
                getattr(changed, f"high_{e}")[column] -= 0.0101 * width
            else:
                changed = with_range(potential, e, column, float(values.min()), high + 1.0)
                width = getattr(changed, f"high_{e}")[column] - getattr(changed, f"low_{e}")[column]
                getattr(changed, f"low_{e}")[column] += 0.0101 * width
            if (number, name) not in flagged(changed, item):
                missed.append((number, name))
    assert missed == []


def test_no_atom_of_the_training_structures_is_flagged(data, potential):
    # one by one and in batches, whose sums are rounded otherwise
    assert not any(flagged(potential, data[k]) for k in range(len(data)))
    batch = data.collate([data[k] for k in range(len(data))])
    assert not flagged(potential, batch)
    # the control: squeezed by a tenth they are
    squeezed = batch._replace(positions=0.9 * batch.positions, offset=0.9 * batch.offset)
    assert flagged(potential, squeezed)
