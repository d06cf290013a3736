"""The default recipe on real structures, beside published networks; minutes long, so only run by `make long`."""

from pathlib import Path

import pytest

from molml.energy import StructureDataset, evaluate, fit

DATA = Path(__file__).parents[3] / "shared" / "data" / "energy" / "mlearn"


@pytest.mark.long
@pytest.mark.parametrize(
    ("element", "published"),
    # energy RMSE, MAE (eV/atom), force RMSE, MAE (eV/Å): networks of Zuo et al., J. Phys. Chem. A 124, 731 (2020),
    # evaluated anew with n2p2 on the test structures
    [
        ("Li", (0.00098, 0.00075, 0.0234, 0.0168)),
        ("Si", (0.00693, 0.00563, 0.1697, 0.1086)),
        ("Mo", (0.00543, 0.00365, 0.2032, 0.1250)),
        ("Cu", (0.00168, 0.00115, 0.0630, 0.0262)),
    ],
)
def test_linear_potential_beats_the_published_network(element: str, published: tuple[float, ...]) -> None:
    path = DATA / f"{element}_train.xyz.xz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    train = StructureDataset(path)
    potential = fit(train, model="linear")
    metrics = evaluate(potential, StructureDataset(DATA / f"{element}_test.xyz.xz")).metrics
    found = [metrics[name] for name in ("energy_rmse", "energy_mae", "forces_rmse", "forces_mae")]
    assert all(mine < theirs for mine, theirs in zip(found, published, strict=True)), found
    # no force component of any training structure is far off
    metrics = evaluate(potential, train).metrics
    assert metrics["forces_max"] < 10.0 * metrics["forces_rmse"]
