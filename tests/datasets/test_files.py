import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from molml.datasets import DownloadError, add, catalogue, download, files, make, path
from molml.datasets.files import cache_folder, compare, store


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MOLML_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MOLML_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "molml"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "molml"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "molml"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_folder() == tmp_path / "molml" / "cache"


def test_path_of_an_embedded_set():
    assert (path("ethanol") / "train.xyz.xz").is_file()


def test_damaged_embedded_file_is_refused(monkeypatch, tmp_path):
    text = (catalogue.embedded_folder() / "ethanol" / "card.toml").read_text(encoding="utf-8")
    (tmp_path / "ethanol").mkdir()
    (tmp_path / "ethanol" / "card.toml").write_text(text, encoding="utf-8")
    (tmp_path / "ethanol" / "train.xyz.xz").write_bytes(b"damaged")
    for module in (catalogue, files):
        monkeypatch.setattr(module, "embedded_folder", lambda: tmp_path)
    with pytest.raises(DownloadError, match=r"train\.xyz\.xz must have 228384 bytes .* install molml again"):
        path("ethanol")


def test_download_then_path(public_set, content):
    with pytest.raises(FileNotFoundError, match="fetch it with `molml data download toy`"):
        path("toy")
    folder = download("toy")
    assert (folder / "toy.bin").read_bytes() == content
    assert path("toy") == folder


def test_second_download_asks_nobody(public_set):
    folder = download("toy")
    public_set["files"][0]["url"] = "http://127.0.0.1:1/closed"
    assert download("toy") == folder


def test_damaged_cache_is_noticed_and_renewed(public_set, content):
    file = download("toy") / "toy.bin"
    file.write_bytes(content[:-1] + b"x")
    with pytest.raises(DownloadError, match="another file or damaged; run `molml data download toy` to replace it"):
        path("toy")
    download("toy")
    assert (path("toy") / "toy.bin").read_bytes() == content


def test_failed_download_says_what_to_do_by_hand(public_set, server):
    file = public_set["files"][0]
    file["url"] = f"{server}/wrong/toy.bin"
    with pytest.raises(DownloadError) as caught:
        download("toy")
    message = str(caught.value)
    assert "toy.bin of 'toy' could not be downloaded: wrong content" in message
    assert file["url"] in message
    assert file["sha256"] in message
    assert str(cache_folder() / "toy" / "toy.bin") in message
    assert "molml data add toy FILE" in message


@pytest.mark.parametrize("url", ["missing/toy.bin", "silent/toy.bin"])
def test_server_without_the_file(url, public_set, server, monkeypatch):
    monkeypatch.setattr(files.importlib.import_module("molml.datasets.web"), "ANSWER_SECONDS", 0.5)
    public_set["files"][0]["url"] = f"{server}/{url}"
    with pytest.raises(DownloadError, match="answers 404 Not Found|timed out|no answer within 0.5 s"):
        download("toy")


def test_offline_gives_the_same_message_at_once(public_set, monkeypatch):
    monkeypatch.setenv("MOLML_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"(?s)MOLML_OFFLINE is set\n  URL .*SHA-256 .*by hand  save it as"):
        download("toy")


def test_only_chooses_files(public_set):
    with pytest.raises(ValueError, match=r"only must match a file of 'toy', got '\*\.csv'; the files are toy\.bin"):
        download("toy", only="*.csv")
    assert (download("toy", only="*.bin") / "toy.bin").is_file()


def test_described_set_is_not_downloaded(public_set):
    with pytest.raises(ValueError, match="'described' is not downloaded by molml; .* get it yourself from a library"):
        download("described")
    with pytest.raises(ValueError, match="takes no files: molml has no hash"):
        add("described", "x")


def test_embedded_set_needs_no_download():
    assert download("ethanol") == path("ethanol")
    with pytest.raises(ValueError, match="takes no files"):
        add("ethanol", "x")


def test_package_set_says_how(monkeypatch):
    with pytest.raises(ValueError, match=r"pip download .* molsets==0\.3\.1`, then `molml data add moses molsets-0"):
        download("moses")


def test_add_takes_the_right_file_under_any_name(public_set, content, tmp_path):
    source = tmp_path / "downloaded (1)"
    source.write_bytes(content)
    assert add("toy", source) == [cache_folder() / "toy" / "toy.bin"]
    assert (path("toy") / "toy.bin").read_bytes() == content


def test_add_refuses_other_files(public_set, tmp_path):
    source = tmp_path / "other"
    source.write_bytes(b"other")
    with pytest.raises(
        ValueError, match=r"(?s)must be one of the files of 'toy', got .*expected one of\n  [0-9a-f]{64}"
    ):
        add("toy", source)
    assert not cache_folder().exists()
    with pytest.raises(FileNotFoundError):
        add("toy", tmp_path / "absent")


def test_add_takes_members_of_a_package(public_set, content, tmp_path):
    wheel = tmp_path / "toy-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/data.bin", content)
        archive.writestr("../escape", b"not asked for")
    file = public_set["files"][0]
    del file["url"]
    file["member"] = "toy/data.bin"
    public_set["package"] = "toy==1"
    public_set["package_sha256"] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert add("toy", wheel) == [cache_folder() / "toy" / "toy.bin"]
    assert [each.name for each in (cache_folder() / "toy").iterdir()] == ["toy.bin"]
    with pytest.raises(ValueError, match=r"toy==1 \(wheel\)"):
        add("toy", Path(__file__))


def test_member_larger_than_declared_is_stopped(public_set, content, tmp_path):
    wheel = tmp_path / "bomb.whl"
    with zipfile.ZipFile(wheel, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("toy/data.bin", bytes(10 * len(content)))
    public_set["files"][0]["member"] = "toy/data.bin"
    public_set["package"] = "toy==1"
    public_set["package_sha256"] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with pytest.raises(DownloadError, match="longer than declared"):
        add("toy", wheel)
    assert list((cache_folder() / "toy").iterdir()) == []


def test_interrupted_store_cleans_up(tmp_path):
    def chunks():
        yield b"abc"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(chunks(), tmp_path / "x", size=6, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_store_leaves_a_young_neighbour_alone(tmp_path):
    young, old = tmp_path / ".x.1.part", tmp_path / ".x.2.part"
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    store([b"abc"], tmp_path / "x", size=3, sha256=hashlib.sha256(b"abc").hexdigest())
    assert sorted(each.name for each in tmp_path.iterdir()) == [".x.1.part", "x"]


@pytest.fixture
def toy_recipe(monkeypatch, tmp_path):
    """An embedded set whose recipe writes its seed."""
    folder = tmp_path / "sets" / "toy"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(
        'seed = 3\nrequires = ["sys"]\n[[files]]\nname = "a"\nsha256 = "3"\nvalues_sha256 = "v"\n', encoding="utf-8"
    )
    (folder / "make.py").write_text(
        "import os, pathlib, sys\n"
        "_, _, seed, _, output = sys.argv\n"
        "assert os.environ['OMP_NUM_THREADS'] == '1'\n"
        "pathlib.Path(output).mkdir(exist_ok=True)\n"
        "value = 'v' if seed in '34' else 'w'\n"
        'text = f\'[[files]]\\nname = "a"\\nsha256 = "{seed}"\\nvalues_sha256 = "{value}"\\n\'\n'
        "(pathlib.Path(output) / 'card.toml').write_text(text)\n"
        "sys.exit(seed == '9')\n",
        encoding="utf-8",
    )
    for module in (catalogue, files):
        monkeypatch.setattr(module, "embedded_folder", lambda: tmp_path / "sets")
    monkeypatch.chdir(tmp_path)
    return folder


def test_make_runs_the_recipe_with_the_seed_of_the_card(toy_recipe):
    assert make("toy") == Path("toy")
    assert compare("toy", Path("toy")) == {"a": "the same bytes"}


def test_make_with_other_seeds(toy_recipe, tmp_path):
    assert compare("toy", make("toy", seed=4, output=tmp_path / "b")) == {"a": "the same values to 1e-4"}
    assert compare("toy", make("toy", seed=5, output=tmp_path / "b")) == {"a": "other values"}


def test_make_hands_the_temperature_on(toy_recipe, tmp_path):
    with pytest.raises(ValueError, match=r"the recipe of 'toy' has no temperature to choose, got 300\.0; leave it out"):
        make("toy", temperature=300.0)
    card, script = toy_recipe / "card.toml", toy_recipe / "make.py"
    card.write_text("temperature = 600\n" + card.read_text(encoding="utf-8"), encoding="utf-8")
    text = script.read_text(encoding="utf-8").replace("_, output = sys.argv", "_, output, option, kelvin = sys.argv")
    script.write_text(text.replace("sys.exit(seed == '9')", "sys.exit((option, kelvin) != ('--temperature', '300.0'))"))
    assert make("toy", temperature=300.0, output=tmp_path / "b") == tmp_path / "b"
    with pytest.raises(ChildProcessError):
        make("toy", temperature=301.0, output=tmp_path / "c")
    with pytest.raises(ValueError, match=r"temperature must be a positive number of K, got -5\.0"):
        make("toy", temperature=-5.0, output=tmp_path / "d")


def test_make_overwrites_only_what_it_is_told_to(toy_recipe):
    make("toy")
    with pytest.raises(FileExistsError, match="remove it or choose another folder with output"):
        make("toy")
    make("toy", output="toy")


def test_failing_recipe_is_an_error(toy_recipe):
    with pytest.raises(ChildProcessError, match="ended with exit status 1"):
        make("toy", seed=9)


def test_recipe_with_a_missing_package(toy_recipe):
    card = toy_recipe / "card.toml"
    card.write_text(card.read_text(encoding="utf-8").replace('"sys"', '"no_such_package"'), encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="the recipe of 'toy' needs no_such_package: pip install no_such"):
        make("toy")


def test_public_set_has_no_recipe(public_set):
    with pytest.raises(ValueError, match="only an embedded data set has a recipe, got 'toy'"):
        make("toy")
