"""Independent calls in this process, in others, and by the workers of a Dask cluster."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from molml.training.cluster import calls, cluster


def test_without_an_executor_a_call_is_made_when_its_result_is_wanted():
    made = []
    work = calls(None, made.append, [(1,), (2,), (3,)])
    place, result = next(work)
    assert (place, made) == (0, [])
    result()
    assert made == [1]
    next(work)
    work.close()
    assert made == [1]


def test_results_come_as_they_are_ready_with_their_places():
    go = Event()

    def wait(number):
        assert number == 1 or go.wait(30)
        return 10 * number

    with ThreadPoolExecutor(2) as pool:
        results = calls(pool, wait, [(0,), (1,)])
        # the first call ends only after the result of the second is here
        place, result = next(results)
        assert (place, result()) == (1, 10)
        go.set()
        assert [(place, result()) for place, result in results] == [(0, 0)]


def test_errors_come_where_the_result_is_asked_for():
    with ThreadPoolExecutor(1) as pool:
        results = {place: result for place, result in calls(pool, int, [("1",), ("one",), ("3",)])}
    assert results[0]() == 1
    assert results[2]() == 3
    with pytest.raises(ValueError, match="one"):
        results[1]()


def test_what_has_not_begun_is_not_done_when_the_iteration_is_left():
    made, go = [], Event()

    def work(number):
        made.append(number)
        assert number == 0 or go.wait(10)

    with ThreadPoolExecutor(1) as pool:
        results = calls(pool, work, [(k,) for k in range(5)])
        next(results)
        results.close()
        go.set()
    assert made in ([0], [0, 1])


def test_no_address_is_no_executor():
    with cluster(None) as executor:
        assert executor is None


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as local:
        yield local


def test_workers_of_a_dask_cluster(dask):
    with cluster(dask.scheduler_address) as executor:
        found = dict((place, result()) for place, result in calls(executor, divmod, [(7, 2), (9, 4), (1, 1)]))
        places = {result() for _, result in calls(executor, os.getpid, [() for _ in range(8)])}
    assert found == {0: (3, 1), 1: (2, 1), 2: (1, 0)}
    assert os.getpid() not in places


def test_the_file_of_a_scheduler_is_as_good_as_its_address(dask, tmp_path):
    import json

    (tmp_path / "scheduler.json").write_text(json.dumps({"address": dask.scheduler_address}))
    with cluster(str(tmp_path / "scheduler.json")) as executor:
        assert [result() for _, result in calls(executor, abs, [(-2,)])] == [2]


def test_workers_with_another_version_are_refused(dask, monkeypatch):
    monkeypatch.setattr("molml.__version__", "99.0")
    with pytest.raises(ValueError, match="has molml .*, and this is 99.0; install the same"), \
            cluster(dask.scheduler_address):  # fmt: skip
        pass


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("molml.training.cluster.PATIENCE", 0.5)
    for address in ("tcp://127.0.0.1:9", "nowhere"):
        with pytest.raises(ValueError, match=f"no Dask scheduler answers at {address}"), cluster(address):
            pass
