import numpy as np
import pytest

from molml.molecules.plots import plot_latent_map, plot_properties

RANDOM = np.random.default_rng(0)


def test_map_shows_the_leading_components():
    codes = RANDOM.normal(size=(50, 4)) * np.array([0.1, 5.0, 1.0, 0.1])
    values = np.append(RANDOM.normal(size=49), np.nan)
    ax = plot_latent_map(codes, values, label="logP")
    points = ax.collections[0].get_offsets()
    assert points.shape == (49, 2)  # one value is unknown
    centred = codes[:49] - codes[:49].mean(0)
    assert abs(np.corrcoef(points[:, 0], centred[:, 1])[0, 1]) > 0.99
    assert points[:, 0].std() > points[:, 1].std() > 0.5
    assert ax.get_xlabel().startswith("component 1 (9")


def test_distributions_are_of_each_set():
    ax = plot_properties({"a": RANDOM.normal(size=500), "b": RANDOM.normal(3, size=200)}, label="QED")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert ax.get_xlabel() == "QED"
    assert len(ax.patches) == 2


def test_plots_draw_where_they_are_told():
    ax = plot_properties({"a": [1.0, 2.0]}, label="x")
    assert plot_properties({"b": [1.0, 1.0]}, label="y", ax=ax) is ax
    assert plot_latent_map(RANDOM.normal(size=(5, 2)), np.arange(5.0), label="z", ax=ax) is ax


def test_wrong_data_are_refused():
    with pytest.raises(ValueError, match=r"must be \(n, n_latent\) and \(n,\), got \(5, 2\) and \(4,\)"):
        plot_latent_map(np.zeros((5, 2)), np.zeros(4), label="x")
    with pytest.raises(ValueError, match="at least three molecules with a known logP, got 2"):
        plot_latent_map(np.zeros((3, 2)), np.array([1.0, 2.0, np.nan]), label="logP")
    for sets in ({}, {"a": [1.0], "b": []}):
        with pytest.raises(ValueError, match="sets must hold at least one value each"):
            plot_properties(sets, label="x")
