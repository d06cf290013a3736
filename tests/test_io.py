import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from molml.io import ModelFileError, container_info, load_container, save_container, write_atomic

CONFIG = {"cutoff": 6.0, "elements": [1, 8], "name": "Å"}
METADATA = {"units": {"energy": "eV"}, "metrics": {"test": None}}
PREFIX = b'{"__metadata__":{"molml":"{\\"sha256\\":\\"'
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


def tensors():
    return {
        "weights": torch.tensor([[1.5, -2.25], [1e-300, 4.0]], dtype=torch.float64),
        "numbers": torch.tensor([1, 8]),
        "mask": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(0.1, dtype=torch.float32),
    }


def seal(header: bytes, payload: bytes = b"") -> bytes:
    """A file with any header and a right digest, as an attacker would make it."""
    data = len(header).to_bytes(8, "little") + header + payload
    start = 8 + len(PREFIX)
    digest = hashlib.sha256(data[:start] + b"0" * 64 + data[start + 64 :]).hexdigest().encode()
    return data[:start] + digest + data[start + 64 :]


def header(description: str, entries: str = "") -> bytes:
    """Header whose description is the given JSON text behind the digest."""
    inner = json.dumps('{"sha256":"' + "0" * 64 + '",' + description + "}", ensure_ascii=False)
    return ('{"__metadata__":{"molml":' + inner + "}" + entries + "}").encode()


GOOD = '"format":1,"kind":"X","config":{},"metadata":{}'
ONE = ',"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}'


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.molml"
    save_container(path, "LinearPotential", CONFIG, tensors(), METADATA)
    return path


# --- what goes in comes out ------------------------------------------------------------------------------------------


def test_round_trip(saved):
    container = load_container(saved)
    assert container.kind == "LinearPotential"
    assert container.config == CONFIG
    assert container.metadata["units"] == {"energy": "eV"}
    assert set(container.metadata["versions"]) == {"molml", "python", "torch", "numpy"}
    assert container.metadata["created"].endswith("+00:00")
    assert container.tensors.keys() == tensors().keys()
    for name, expected in tensors().items():
        torch.testing.assert_close(container.tensors[name], expected, rtol=0, atol=0)


def test_versions_and_date_of_the_caller_win(tmp_path):
    save_container(tmp_path / "m", "X", {}, {}, {"created": "1666", "versions": {}})
    metadata = load_container(tmp_path / "m").metadata
    assert (metadata["created"], metadata["versions"]) == ("1666", {})


def test_info_describes_without_tensors(saved):
    info = container_info(saved)
    assert info.shapes["weights"] == ("F64", (2, 2))
    assert info.shapes["scalar"] == ("F32", ())
    assert info.n_bytes == saved.stat().st_size
    assert info.sha256.encode() in saved.read_bytes()
    assert (info.kind, info.config) == ("LinearPotential", CONFIG)


def test_any_safetensors_reader_can_read_it(saved):
    torch.testing.assert_close(load_file(saved)["weights"], tensors()["weights"], rtol=0, atol=0)


def test_shared_strided_and_trainable_tensors(tmp_path):
    weights = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).requires_grad_()
    save_container(tmp_path / "m", "X", {}, {"a": weights, "b": weights.T}, {})
    loaded = load_container(tmp_path / "m").tensors
    torch.testing.assert_close(loaded["b"], loaded["a"].T, rtol=0, atol=0)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        ),
    )
)
def test_any_config_survives(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "any.molml"
    save_container(path, "X", config, {}, {})
    assert load_container(path).config == config


# --- what cannot be stored -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"a": {"b": [float("nan")]}}, ValueError, r"config\['a'\]\['b'\]\[0\] must be finite, got nan"),
        ({"a": float("inf")}, ValueError, r"config\['a'\] must be finite, got inf"),
        ({"a": {1: 2}}, TypeError, r"config\['a'\] must have strings as keys, got 1"),
        ({"a": torch.ones(1)}, TypeError, r"config\['a'\] must be None, .* got torch.Tensor; convert it"),
        ([], TypeError, "config must be a mapping, got list"),
    ],
)
def test_config_must_be_json(tmp_path, config, error, message):
    with pytest.raises(error, match=message):
        save_container(tmp_path / "m", "X", config, {}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("stored", "error", "message"),
    [
        ({"w": torch.tensor([1.0, float("nan")])}, ValueError, r"tensors\['w'\] must be finite, got NaN"),
        ({"w": torch.tensor([-float("inf")])}, ValueError, r"tensors\['w'\] must be finite"),
        ({"w": torch.ones(1, dtype=torch.complex64)}, TypeError, "must be one of float64, .* got torch.complex64"),
        ({"w": [1.0]}, TypeError, "must be a Tensor, got list"),
        ({"__metadata__": torch.ones(1)}, ValueError, "must not be named '__metadata__'"),
    ],
)
def test_tensors_must_be_finite_and_real(tmp_path, stored, error, message):
    with pytest.raises(error, match=message):
        save_container(tmp_path / "m", "X", {}, stored, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["", None])
def test_kind_must_be_a_name(tmp_path, kind):
    with pytest.raises(ValueError, match="kind must be the name of a class"):
        save_container(tmp_path / "m", kind, {}, {}, {})


def test_metadata_must_fit_into_the_header(tmp_path, monkeypatch):
    monkeypatch.setattr("molml.io._MAX_HEADER", 1000)
    with pytest.raises(ValueError, match="must take less than 1000 bytes as JSON, got 1...; store long lists"):
        save_container(tmp_path / "m", "X", {"long": "x" * 1000}, {}, {})


def test_an_unexpected_safetensors_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("safetensors.torch.save", lambda *_, **__: b"\x02" + bytes(7) + b"{}")
    with pytest.raises(RuntimeError, match="another header than molml expects"):
        save_container(tmp_path / "m", "X", {}, {}, {})


# --- damage ----------------------------------------------------------------------------------------------------------


def test_every_bit_flip_is_refused(saved):
    good = saved.read_bytes()
    for index in range(8 * len(good)):
        bad = bytearray(good)
        bad[index // 8] ^= 1 << index % 8
        saved.write_bytes(bad)
        with pytest.raises(ModelFileError, match="damaged"):
            load_container(saved)
    saved.write_bytes(good)
    load_container(saved)


def test_every_truncation_and_every_tail_is_refused(saved):
    good = saved.read_bytes()
    for length in range(len(good)):
        saved.write_bytes(good[:length])
        with pytest.raises(ModelFileError, match="damaged"):
            load_container(saved)
    saved.write_bytes(good + b"\0")
    with pytest.raises(ModelFileError, match="damaged"):
        load_container(saved)


def test_info_verifies_too(saved):
    saved.write_bytes(saved.read_bytes()[:-1] + b"\7")
    with pytest.raises(ModelFileError, match="SHA-256 must be [0-9a-f]{64}, got [0-9a-f]{64}; get the file again"):
        container_info(saved)


# --- attacks: the digest is right, the content is not ----------------------------------------------------------------


def test_the_attacks_below_are_well_made(tmp_path):
    (tmp_path / "m").write_bytes(seal(header(GOOD, ONE), bytes(8)))
    assert load_container(tmp_path / "m").tensors["w"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("content", "payload"),
    [
        (header(GOOD + ',"kind":"Y"', ONE), bytes(8)),
        (header(GOOD, ONE + ONE), bytes(8)),
        (header(GOOD)[:-1] + b',"__metadata__":{"molml":"{}"}}', b""),
        (header(GOOD)[:-2] + b',"other":"x"}}', b""),
        (header(GOOD.replace('"config":{}', '"config":{"a":NaN}')), b""),
        (header(GOOD.replace('"config":{}', '"config":{"a":1e999}')), b""),
        (header(GOOD.replace('"config":{}', '"config":[]')), b""),
        (header(GOOD.replace('"config":{}', '"config":' + "[" * 100_000)), b""),
        (header(GOOD.replace('"kind":"X"', '"kind":7')), b""),
        (header(GOOD.replace('"format":1', '"format":2')), b""),
        (header('"kind":"X"'), b""),
        (header(GOOD, ONE.replace("[1]", "[1000000000]")), bytes(8)),
        (header(GOOD, ONE.replace("[1]", "[4294967296,4294967296]")), bytes(8)),
        (header(GOOD, ONE.replace("[1]", "[-1]")), bytes(8)),
        (header(GOOD, ONE.replace("[0,8]", "[0,8000000000]")), bytes(8)),
        (header(GOOD, ONE.replace("[0,8]", "[8,16]")), bytes(16)),
        (header(GOOD, ONE + ONE.replace('"w"', '"v"')), bytes(8)),
        (header(GOOD, ONE.replace("F64", "F4")), bytes(8)),
        (header(GOOD, ',"w":7'), b""),
        (header(GOOD, ONE), b"\0\0\0\0\0\0\xf8\x7f"),
        (header(GOOD, ONE), b"\0\0\0\0\0\0\xf0\xff"),
        (header(GOOD, ONE), bytes(9)),
        (header(GOOD)[:-1] + b"\xff}", b""),
    ],
)
def test_invalid_content_is_refused_quickly(tmp_path, content, payload):
    (tmp_path / "m").write_bytes(seal(content, payload))
    start = time.process_time()
    with pytest.raises(ModelFileError, match="valid molml file|finite numbers"):
        load_container(tmp_path / "m")
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("length", [2**63, 2**40, 33 * 2**20, 200])
def test_claimed_header_length_costs_nothing(tmp_path, length):
    data = seal(header(GOOD))
    (tmp_path / "m").write_bytes(length.to_bytes(8, "little") + data[8:150])
    with pytest.raises(ModelFileError, match=f"its header must fit into .* bytes, got {length}"):
        load_container(tmp_path / "m")


def test_a_huge_other_file_is_refused_at_once(tmp_path):
    with open(tmp_path / "m", "wb") as file:
        file.truncate(2**40)  # sparse
    start = time.process_time()
    with pytest.raises(ModelFileError, match="is not a molml file"):
        load_container(tmp_path / "m")
    assert time.process_time() - start < 0.1


class Payload:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def test_pickles_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickles = [pickle.dumps(Payload(), protocol) for protocol in range(6)]
    torch.save({"w": torch.ones(1)}, "zip")
    contents = [*pickles, Path("zip").read_bytes(), *(seal(header(GOOD, ONE), bytes(8)) + p for p in pickles)]
    for content in contents:
        Path("m").write_bytes(content)
        with pytest.raises(ModelFileError):
            load_container("m")
    assert not Path("executed").exists()
    pickle.loads(pickles[2])
    assert Path("executed").exists()  # the payload works, so the test means something


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_container(tmp_path / "absent.molml")


# --- atomic writing --------------------------------------------------------------------------------------------------


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    write_atomic(str(tmp_path / "a"), b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_write_atomic_follows_links(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b" / "target")
    write_atomic(tmp_path / "link", b"x")
    assert (tmp_path / "b" / "target").read_bytes() == b"x"
    assert (tmp_path / "link").is_symlink()


def test_write_atomic_needs_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder that does not exist"):
        write_atomic(tmp_path / "absent" / "a", b"x")


def test_stale_files_of_the_same_name_go_others_stay(tmp_path):
    stale, other, users = tmp_path / ".a.0123abcd.tmp", tmp_path / ".b.0123abcd.tmp", tmp_path / ".a.mine.tmp"
    for path in (stale, other, users):
        path.write_bytes(b"")
    write_atomic(tmp_path / "a", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.mine.tmp", ".b.0123abcd.tmp", "a"]


@posix
def test_the_temporary_file_of_a_living_writer_stays(tmp_path):
    import fcntl

    with open(tmp_path / ".a.0123abcd.tmp", "wb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        write_atomic(tmp_path / "a", b"x")
        assert (tmp_path / ".a.0123abcd.tmp").exists()


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, call, error):
    write_atomic(tmp_path / "a", b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(call, fail)
    with pytest.raises(type(error), match=f"cannot write the file .{error.strerror}.: '.*a'"):
        write_atomic(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


LIMITED = """
import resource, sys
from molml.io import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
write_atomic(sys.argv[1], b"new" * 10_000)
"""


@posix
def test_a_full_disk_leaves_the_old_file(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    child = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "a"], capture_output=True, text=True)
    assert "OSError: [Errno 27] cannot write the file (File too large)" in child.stderr
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_leaves_the_old_file(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot write the file"):
        write_atomic(tmp_path / "a", b"new")
    tmp_path.chmod(0o700)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


WRITER = """
import sys
from pathlib import Path
from molml.io import write_atomic
contents = [Path(name).read_bytes() for name in sys.argv[2:]]
print("ready", flush=True)
while True:
    for content in contents:
        write_atomic(sys.argv[1], content)
"""


@posix
def test_kill_9_never_leaves_an_unreadable_file(tmp_path):
    large = {"w": torch.arange(50_000, dtype=torch.float64)}
    save_container(tmp_path / "one", "One", {}, large, {})
    save_container(tmp_path / "two", "Two", {}, large, {})
    (tmp_path / "run").mkdir()
    target = tmp_path / "run" / "checkpoint.molml"
    command = [sys.executable, "-c", WRITER, target, tmp_path / "one", tmp_path / "two"]
    delays = random.Random(0)
    kinds = set()
    for _ in range(20):
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(0.02 + delays.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        kinds.add(load_container(target).kind)
    assert kinds <= {"One", "Two"}
    # at most the last killed writer left something behind: the others' remains were cleared away
    assert len(list(target.parent.iterdir())) <= 2
