import pytest
import torch
from threadpoolctl import threadpool_info

from molml.training.threads import limit_threads


@pytest.fixture
def _restored():
    before = torch.get_num_threads()
    yield
    limit_threads(before)


@pytest.mark.usefixtures("_restored")
def test_all_libraries_are_limited():
    limit_threads(2)
    limit_threads(1)
    assert torch.get_num_threads() == 1
    assert {pool["num_threads"] for pool in threadpool_info()} == {1}


@pytest.mark.usefixtures("_restored")
def test_none_changes_nothing():
    limit_threads(2)
    limit_threads(None)
    assert torch.get_num_threads() == 2


def test_less_than_one_is_refused():
    with pytest.raises(ValueError, match="--threads must be at least 1, got 0"):
        limit_threads(0)
