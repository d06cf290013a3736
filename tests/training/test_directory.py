import os
import signal
import subprocess
import sys
import time

import pytest

from molml.training import directory
from molml.training.directory import run_directory

# by its file: the package would import torch first, in every child
IMPORT = f"""
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("directory", {directory.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
run_directory = module.run_directory
"""

CHILD = """
with run_directory(sys.argv[1], resume=True):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that holds the lock of tmp_path."""
    with subprocess.Popen(
        [sys.executable, "-c", IMPORT + CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "locked\n"
        yield child
        child.kill()


def test_the_folder_is_made_and_the_lock_removed(tmp_path):
    with run_directory(tmp_path / "a" / "b") as folder:
        assert folder == tmp_path / "a" / "b"
        assert str(os.getpid()) in (folder / ".lock").read_text()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "model.molml").write_text("precious")
    with pytest.raises(ValueError, match=r"already holds a run \(model.molml\).*--resume.*--overwrite"):
        with run_directory(tmp_path):
            pass
    assert (tmp_path / "model.molml").read_text() == "precious"
    # and the refusal left no lock behind
    with run_directory(tmp_path, resume=True):
        assert (tmp_path / "model.molml").read_text() == "precious"


def test_many_files_are_not_all_named(tmp_path):
    for k in range(5):
        (tmp_path / f"member-{k}").mkdir()
    with pytest.raises(ValueError, match=r"\(member-0, member-1, member-2 …\)"):
        with run_directory(tmp_path, files=("member-*",)):
            pass


def test_files_of_others_are_no_run(tmp_path):
    (tmp_path / "data.xyz").write_text("data")
    with run_directory(tmp_path):
        pass
    assert (tmp_path / "data.xyz").read_text() == "data"


def test_overwriting_sets_the_old_run_aside(tmp_path):
    for n in (1, 2):
        (tmp_path / "model.molml").write_text(f"run {n}")
        (tmp_path / "parity.png").write_text(f"figure {n}")
        (tmp_path / "data.xyz").write_text("data")
        with run_directory(tmp_path, overwrite=True, files=("model.molml", "parity*.png")) as folder:
            names = sorted(entry.name for entry in folder.glob("[a-z]*"))
            assert names == ["data.xyz", *(f"previous-{k}" for k in range(1, n + 1))]
        assert (tmp_path / f"previous-{n}" / "model.molml").read_text() == f"run {n}"
        assert (tmp_path / f"previous-{n}" / "parity.png").read_text() == f"figure {n}"
    assert (tmp_path / "previous-1" / "model.molml").read_text() == "run 1"


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="exclude each other"):
        with run_directory(tmp_path, resume=True, overwrite=True):
            pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder, got a file"):
        with run_directory(tmp_path / "file"):
            pass


def test_a_second_writer_is_refused_and_told_who_is_there(tmp_path, writer):
    with pytest.raises(ValueError, match=f"being written to by process {writer.pid} on "):
        with run_directory(tmp_path, resume=True):
            pass
    # the refused one must not have removed the lock
    with pytest.raises(ValueError, match="being written to"):
        with run_directory(tmp_path, resume=True):
            pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, writer, how):
    writer.send_signal(how)
    writer.wait()
    assert (tmp_path / ".lock").exists()
    with run_directory(tmp_path, resume=True):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_of_many_that_wait_for_a_stale_lock_one_gets_it_at_a_time(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on nowhere, long dead\n")
    code = """
folder = Path(sys.argv[1])
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    try:
        with run_directory(folder, resume=True):
            (folder / "inside").touch(exist_ok=False)
            time.sleep(0.002)
            (folder / "inside").unlink()
            print("done")
            break
    except ValueError:
        pass
"""
    children = [
        subprocess.Popen([sys.executable, "-c", IMPORT + code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [child.communicate(timeout=60)[0] for child in children] == ["done\n"] * 4
    assert not (tmp_path / ".lock").exists()


def test_an_exception_frees_the_folder(tmp_path):
    with pytest.raises(KeyError):
        with run_directory(tmp_path):
            raise KeyError
    started = time.monotonic()
    with run_directory(tmp_path):
        assert time.monotonic() - started < 5


def test_a_system_without_locks_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "fcntl", None)
    with pytest.warns(UserWarning, match="no file locks"):
        with run_directory(tmp_path):
            assert not (tmp_path / ".lock").exists()
