import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from molml.training import Processes, processes

SCRIPT = Path(__file__).with_name("torchrun_runs.py")


def launch(folder, *torchrun):
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(
        [sys.executable, *torchrun, SCRIPT, folder],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(path.read_text()) for path in sorted(folder.glob("?.json"))], done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    ((results,), _) = launch(tmp_path_factory.mktemp("alone"))
    return results


@pytest.fixture(scope="module", params=[2, 3])
def together(request, tmp_path_factory):
    options = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(request.param)]
    folder = tmp_path_factory.mktemp("together")
    results, messages = launch(folder, *options)
    assert len(results) == request.param
    return results, messages, folder


def flat(run):
    return np.concatenate(run["weights"])


# early stopping takes hundreds of steps, over which roundings grow
@pytest.mark.parametrize(
    ("run", "tolerance"), [("adamw", 1e-10), ("lbfgs", 1e-10), ("early_stopping", 1e-8), ("interrupted", 1e-10)]
)
def test_weights_and_figures_are_those_of_one_process(run, tolerance, alone, together):
    for results in together[0]:
        np.testing.assert_allclose(flat(results[run]), flat(alone[run]), rtol=0, atol=tolerance)
        assert results[run]["stopped_by"] == alone[run]["stopped_by"]
        assert results[run]["best_epoch"] == alone[run]["best_epoch"]
        for record, expected in zip(results[run]["history"], alone[run]["history"], strict=True):
            assert record.keys() == expected.keys()
            # None, where nothing was counted, becomes nan
            figures, numbers = (np.array(list(r.values()), dtype=float) for r in (record, expected))
            np.testing.assert_allclose(figures, numbers, rtol=0, atol=10 * tolerance)


def test_the_runs_are_what_they_should_be(alone):
    # controls: without these the comparison above would prove little
    assert alone["early_stopping"]["stopped_by"] == "patience"
    assert len(alone["adamw"]["history"]) == 6
    assert alone["adamw"]["history"][0]["batches"] == 5
    assert alone["interrupted"] == alone["adamw"]


@pytest.mark.parametrize("run", ["adamw", "lbfgs", "early_stopping", "clock", "interrupted"])
def test_all_processes_hold_the_same_bits(run, together):
    first, *others = [results[run] for results in together[0]]
    assert all(other == first for other in others)
    assert first["weights"]


def test_an_interrupted_run_continues_to_the_same_bits(together):
    for results in together[0]:
        assert results["interrupted"] == results["adamw"]


def test_evaluation_is_that_of_one_process(alone, together):
    for results in together[0]:
        assert results["adamw"]["evaluation"] == pytest.approx(alone["adamw"]["evaluation"], rel=1e-9)


def test_the_clock_of_one_process_decides(together):
    assert together[0][0]["clock"]["stopped_by"] == "minutes"


@pytest.mark.parametrize("run", ["diverging", "diverging_validation"])
def test_all_processes_name_the_bad_batch(run, alone, together):
    assert 20 in alone[run]["indices"]
    for results in together[0]:
        assert results[run] == alone[run]


def test_one_process_writes_and_shows_progress(together):
    _, messages, folder = together
    lines = (folder / "adamw" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert "process 0: 100%" in messages
    assert "process 1" not in messages


def test_without_torchrun_this_is_the_only_process():
    assert processes() == Processes(0, 1)
    assert not torch.distributed.is_initialized()


def test_alone_nothing_is_copied_or_changed():
    one = Processes(0, 1)
    numbers = torch.ones(2)
    assert one.sum(numbers) is numbers
    assert one.broadcast(numbers) is numbers
    parameter = torch.nn.Parameter(torch.ones(1))
    one.sum_gradients([parameter])
    assert parameter.grad is None
    one.wait()
