"""Lagged pairs as a data set, and blocks of time: against pairs counted by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molml.kinetics.data import TimeLaggedDataset, remaining_blocks, time_blocks


def numbered(*lengths: int) -> list[np.ndarray]:
    """Every frame holds its trajectory and its number."""
    return [np.stack([np.full(n, float(i)), np.arange(float(n))], axis=1) for i, n in enumerate(lengths)]


def pairs_of(dataset: TimeLaggedDataset) -> tuple[np.ndarray, np.ndarray]:
    x, y = dataset.collate([dataset[i] for i in range(len(dataset))])
    return x.numpy(), y.numpy()


def frames_of(dataset: TimeLaggedDataset) -> set[tuple[int, int]]:
    return {(int(i), int(t)) for part in pairs_of(dataset) for i, t in part}


@pytest.fixture
def mapped(tmp_path):
    """Arrays as read-only memory maps."""

    def write(arrays):
        for i, array in enumerate(arrays):
            np.save(tmp_path / f"{i}.npy", array)
        return [np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(len(arrays))]

    return write


@pytest.mark.parametrize("lagtime", [0, 1, 4])
def test_all_pairs_of_every_trajectory_and_none_across_their_ends(mapped, lagtime):
    arrays = numbered(5, 9, 30)
    expected = np.concatenate([array[: len(array) - lagtime] for array in arrays])
    for given_ in (arrays, mapped(arrays)):
        dataset = TimeLaggedDataset(given_, lagtime)
        x, y = pairs_of(dataset)
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(y, expected + [0, lagtime])
        assert len(dataset) == 44 - 3 * lagtime and dataset.n_features == 2


def test_order_and_repeats_of_items_are_kept(mapped):
    items = [30, 2, 2, 11]
    for arrays in (numbered(5, 9, 30), mapped(numbered(5, 9, 30))):
        batch = TimeLaggedDataset(arrays, 1).collate(items)
        np.testing.assert_array_equal(batch.x, [[2, 18], [0, 2], [0, 2], [1, 7]])
    assert TimeLaggedDataset(numbered(10), 1)[-1] == 8
    with pytest.raises(IndexError):
        TimeLaggedDataset(numbered(10), 1)[9]


def test_precision_is_that_of_the_trajectories(mapped):
    arrays = [x.astype(np.float32) for x in numbered(5, 9)]
    assert TimeLaggedDataset(arrays, 1).collate([0]).x.dtype == torch.float32
    assert TimeLaggedDataset(mapped(arrays), 1).collate([0]).y.dtype == torch.float32


def test_memory_maps_are_not_read_into_memory(mapped):
    maps = mapped(numbered(50, 50))
    dataset = TimeLaggedDataset(maps, 1)
    assert all(np.shares_memory(piece, x) for piece, x in zip(dataset._pieces, maps, strict=True))


@given(
    st.lists(st.integers(12, 60), min_size=1, max_size=4),
    st.integers(0, 3),
    st.floats(0.05, 0.95),
    st.integers(0, 5),
)
def test_split_never_shares_a_frame(lengths, lagtime, fraction, seed):
    dataset = TimeLaggedDataset(numbered(*lengths), lagtime)
    train, valid = dataset.split(fraction, seed=seed)
    assert not frames_of(train) & frames_of(valid)
    for part in (train, valid):
        x, y = pairs_of(part)
        np.testing.assert_array_equal(y, x + [0, lagtime])
        # whole blocks: as many runs of consecutive pairs as segments, at most
        assert (np.diff(x[:, 1]) != 1).sum() < len(part.segments)
    # a control: random frames would be shared
    mixed = np.random.default_rng(0).permutation(len(dataset))
    first, second = (
        {(int(i), int(t)) for x in dataset.collate(half) for i, t in x} for half in np.array_split(mixed, 2)
    )
    assert bool(first & second) == (lagtime > 0)


def test_split_takes_the_fraction_and_follows_the_seed():
    dataset = TimeLaggedDataset(numbered(1000, 1000), 5)
    train, valid = dataset.split(0.3, seed=1)
    # 6 of 20 blocks of 100 frames; each loses its lag time at the end at most
    assert 6 * 95 <= len(valid) <= 6 * 100 and len(train) >= 1400 - 5 * 14
    assert dataset.split(0.3, seed=1)[1].segments == valid.segments
    assert dataset.split(0.3, seed=2)[1].segments != valid.segments
    assert len(dataset.split(0.5, n_blocks=2)[1].segments) == 1
    # a part can be parted again
    inner, held = train.split(0.5, n_blocks=4)
    assert not frames_of(inner) & frames_of(held) and frames_of(inner) | frames_of(held) <= frames_of(train)


def test_every_block_is_held_out_once():
    dataset = TimeLaggedDataset(numbered(100, 250), 3)
    parts = dataset.blocks(5)
    held = [frames_of(valid) for _, valid in parts]
    assert sum(len(frames) for frames in held) == 350 and len(set().union(*held)) == 350
    assert all(not frames_of(train) & frames_of(valid) for train, valid in parts)


def test_runs_of_one_length_make_folds_of_whole_runs():
    assert time_blocks([100] * 6, 3, 10) == [[(2 * i, 0, 100), (2 * i + 1, 0, 100)] for i in range(3)]
    assert time_blocks([100, 99, 101], 3, 10) == [[(0, 0, 100)], [(1, 0, 99)], [(2, 0, 101)]]
    # slivers are left out
    assert time_blocks([100, 20], 2, 30) == [[(0, 0, 60)], [(0, 60, 100)]]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.integers(2, 6), st.integers(0, 5))
def test_blocks_and_the_rest_make_the_whole(lengths, n_folds, lagtime):
    lengths[0] += 200  # always enough for all folds
    folds = time_blocks(lengths, n_folds, lagtime)
    taken = [(i, t) for fold in folds for i, start, stop in fold for t in range(start, stop)]
    assert len(taken) == len(set(taken)) <= sum(lengths)
    # only slivers are missing, two for every cut or end of a trajectory
    assert sum(lengths) - len(taken) <= lagtime * (n_folds + len(lengths))
    for fold in folds:
        rest = remaining_blocks(lengths, fold, lagtime)
        frames = {(i, t) for i, start, stop in rest for t in range(start, stop)}
        inside = {(i, t) for i, start, stop in fold for t in range(start, stop)}
        assert not frames & inside
        assert all(stop - start > lagtime for _, start, stop in rest)


class Stream:
    n_features = 1
    lengths = [10]

    def blocks(self, index, n_frames):
        yield np.zeros((10, 1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TimeLaggedDataset(Stream(), 1), TypeError, r"to_arrays\(directory\)"),
        (lambda: TimeLaggedDataset(numbered(10, 3), 3), ValueError, r"lagtime=3 and a trajectory of .*=3"),
        (lambda: TimeLaggedDataset([np.full((9, 1), np.nan)], 3), ValueError, "must be finite"),
        (lambda: TimeLaggedDataset(numbered(10), 3, segments=[(0, 5, 8)]), ValueError, r"lagtime=3.*got \(0, 5, 8\)"),
        (lambda: TimeLaggedDataset(numbered(10), 3, segments=[(1, 0, 8)]), ValueError, "segments must be"),
        (lambda: TimeLaggedDataset(numbered(10), 3, segments=[(0, 5, 11)]), ValueError, "segments must be"),
        (lambda: TimeLaggedDataset(numbered(90), 3).split(1.0), ValueError, "between 0 and 1, got 1.0"),
        (lambda: TimeLaggedDataset(numbered(90), 3).split(0.5, n_blocks=1), ValueError, "at least 2, got 1"),
        (lambda: TimeLaggedDataset(numbered(20), 3).split(0.5, n_blocks=6), ValueError, "6 folds of about 3 frames"),
        (lambda: TimeLaggedDataset(numbered(20), 11).blocks(2), ValueError, "fewer folds, or shorten"),
        (lambda: time_blocks([50], 2.0, 3), ValueError, "n_folds must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_nothing_left_for_training_is_refused():
    dataset = TimeLaggedDataset(numbered(40), 3, segments=[(0, 0, 20)])
    with pytest.raises(ValueError, match="no pair is left for training at lagtime=3"):
        dataset._parted([(0, 0, 18)])
