import argparse
import subprocess
import sys

import pytest

from molml.datasets import files
from molml.datasets.catalogue import list_datasets
from molml.datasets.cli import add_parser


def data(*arguments):
    parser = argparse.ArgumentParser("molml")
    add_parser(parser.add_subparsers())
    chosen = parser.parse_args(["data", *arguments])
    return chosen.run(chosen)


def test_list_shows_everything(capsys):
    assert data("list") == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in list_datasets())
    assert max(map(len, shown.splitlines())) <= 120


def test_list_marks_what_is_in_the_cache(public_set, capsys):
    data("list")
    assert "  toy " in capsys.readouterr().out
    data("download", "toy")
    data("list")
    assert "* toy " in capsys.readouterr().out


@pytest.mark.parametrize("name", list_datasets())
def test_show_prints_licence_citation_and_hashes(name, capsys):
    assert data("show", name) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{name}: ")
    assert "\nlicence  " in shown
    assert "\ncitation  " in shown
    assert ("sha256" in shown) != ("not verified" in shown)


def test_path_prints_the_folder(capsys):
    assert data("path", "ethanol") == 0
    assert capsys.readouterr().out == f"{files.path('ethanol')}\n"


def test_download_and_add(public_set, content, capsys, tmp_path):
    assert data("download", "toy", "--only", "toy*") == 0
    assert capsys.readouterr().out == f"{files.cache_folder() / 'toy'}\n"
    (tmp_path / "by_hand").write_bytes(content)
    assert data("add", "toy", str(tmp_path / "by_hand")) == 0
    assert capsys.readouterr().out == f"{files.cache_folder() / 'toy' / 'toy.bin'}\n"


def test_make_reports_the_comparison(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(files, "make", lambda name, seed, temperature, output: tmp_path)
    monkeypatch.setattr(files, "compare", lambda name, folder: {"train.xyz.xz": "the same bytes"})
    assert data("make", "ethanol", "--seed", "1", "--output", str(tmp_path)) == 0
    assert "train.xyz.xz  the same bytes" in capsys.readouterr().out


def test_import_is_cheap():
    code = (
        "import sys; import molml.datasets.cli; "
        "print([m for m in ('numpy', 'torch', 'ase', 'tqdm', 'urllib.request', 'ssl') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"
