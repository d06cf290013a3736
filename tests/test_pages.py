from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from molml import pages


class Reader(HTMLParser):
    """Tags and text of a page, checked for balance."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] if tag not in ("meta", "img", "br") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


HOSTILE = "<script>alert('1 & 2')</script>"


def draw():
    axes = Figure(figsize=(2.0, 1.0)).subplots()
    axes.plot(np.arange(3))
    return axes


def test_a_page_is_whole_and_loads_nothing():
    reader = Reader(pages.page(HOSTILE, ["<h1>x</h1>"]).decode())
    assert reader.open == []
    assert HOSTILE in reader.words
    assert "default-src 'none'" in reader.tags[3][1]["content"]


@pytest.mark.parametrize(
    "element",
    [
        pages.table([HOSTILE, "b"], [[HOSTILE, "1"]]),
        pages.cards([(HOSTILE, "b"), ("a", HOSTILE)]),
    ],
)
def test_text_stays_text(element):
    reader = Reader(element)
    assert "script" not in [tag for tag, _ in reader.tags]
    assert reader.words.count(HOSTILE) == 2
    assert reader.open == []


def test_the_reader_above_would_see_a_script():
    assert "script" in [tag for tag, _ in Reader(HOSTILE).tags]


def test_table():
    reader = Reader(pages.table(["", ""], [["a\nb", "1"], ["c", "2"]], text=(0,)))
    tags = [tag for tag, _ in reader.tags]
    assert (tags.count("th"), tags.count("tr"), tags.count("br")) == (0, 2, 1)
    assert [attributes.get("class") for tag, attributes in reader.tags if tag == "td"] == ["text", None, "text", None]


def test_figures_are_written_and_embedded(tmp_path):
    element = pages.Figures(tmp_path).html("curve", draw, HOSTILE)
    reader = Reader(element)
    image = reader.tags[1][1]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert image["src"].startswith("data:image/png;base64,")
    assert (image["alt"], image["width"]) == (HOSTILE, "192")
