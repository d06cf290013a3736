"""One self-contained page: style, tables and figures of the reports that every arm writes.

A page needs nothing but itself: figures are part of it, there are no scripts, and a content security policy forbids
the browser to load anything.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, final

from molml.io import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Figures", "cards", "page", "table"]

DPI = 170

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #f5f6f8; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 8px 0 2px; } h2 { font-size: 18px; margin: 34px 0 10px; }
.sub { color: #6b7280; margin: 0 0 18px; overflow-wrap: anywhere; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; }
.card { background: white; border: 1px solid #e3e6ea; border-radius: 8px; padding: 10px 16px; min-width: 130px; }
.card b { display: block; font-size: 21px; font-weight: 600; } .card span { color: #6b7280; font-size: 13px; }
table { border-collapse: collapse; background: white; border: 1px solid #e3e6ea; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 9px; text-align: right; border-bottom: 1px solid #eef0f2; vertical-align: top; }
th { font-weight: 600; color: #4b5563; background: #fafbfc; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { overflow-wrap: anywhere; min-width: 5.5em; }
th { white-space: nowrap; }
.wide { overflow-x: auto; }
figure { margin: 0; background: white; border: 1px solid #e3e6ea; border-radius: 8px; padding: 10px; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { color: #6b7280; font-size: 13px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(310px, max-content)); gap: 14px; }
.grid { align-items: start; margin: 8px 0; }
pre { background: #1f2933; color: #f5f6f8; padding: 12px 16px; border-radius: 8px; overflow-x: auto; }
details { margin: 6px 0; } summary { cursor: pointer; }
.note { background: #fff7e6; border: 1px solid #f3ddb0; border-radius: 8px; padding: 8px 14px; }
"""


@final
class Figures:
    """Writes figures beside a page and gives them as HTML.

    Parameters
    ----------
    folder : Path
        Where the PNG files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def html(self, name: str, draw: Callable[[], Axes], caption: str) -> str:
        """Draw a figure, write NAME.png, and return the figure as an element of a page.

        Parameters
        ----------
        name : str
            Of the file, without suffix.
        draw : callable
            Gives the axes of the figure (or one of them).
        caption : str

        Returns
        -------
        str
        """
        data = io.BytesIO()
        figure = cast("Figure", draw().figure)
        figure.savefig(data, format="png", dpi=DPI)
        width = round(96 * figure.get_figwidth())  # CSS pixels
        write_atomic(self.folder / f"{name}.png", data.getvalue())
        encoded = base64.b64encode(data.getvalue()).decode()
        alt = html.escape(caption, quote=True)
        return (
            f'<figure><img width="{width}" alt="{alt}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )


def page(title: str, body: Sequence[str]) -> bytes:
    """A whole page.

    Parameters
    ----------
    title : str
        Plain text.
    body : sequence of str
        Elements, as HTML.

    Returns
    -------
    bytes
        UTF-8, to be written with `molml.io.write_atomic`.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body>\n</html>\n"
    ).encode()


def cards(entries: Sequence[tuple[str, str]]) -> str:
    """The figures that matter most, large, each over its name; plain text."""
    inner = "".join(
        f"<div class=card><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>" for value, name in entries
    )
    return f"<div class=cards>{inner}</div>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    """A table of plain text; a line break in a cell breaks the line.

    Parameters
    ----------
    head : sequence of str
        Titles of the columns; all empty for a table without.
    rows : sequence of sequences of str
    text : sequence of int
        Columns that hold words, not numbers.

    Returns
    -------
    str
    """

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if column in text else ''}>{html.escape(cell).replace(chr(10), '<br>')}</{tag}>"
            for column, cell in enumerate(row)
        )

    lines = [cells("th", head)] if any(head) else []
    lines += [cells("td", row) for row in rows]
    return "<div class=wide><table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"
