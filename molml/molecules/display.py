"""Lists of molecules that show themselves as labelled grids and write themselves to files."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, final

from rdkit import Chem
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from molml.io import write_atomic

__all__ = ["MoleculeList"]

CELL, LABEL, GAP, MARGIN = 210, 20, 8, 12
INK, GREY, PAPER, LINE, ACCENT, TINT = "#1f2933", "#6b7280", "#ffffff", "#e3e6ea", "#3b6fb6", "#eef4fc"
FONT = "DejaVu Sans, Helvetica, Arial, sans-serif"
SUFFIXES = (".svg", ".png", ".csv", ".smi", ".sdf")
MOST_SHOWN = 200


def check_suffix(path: str | os.PathLike[str]) -> str:
    """Suffix of a file that `MoleculeList.save` can write; ValueError if it is none."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"path must end with {', '.join(SUFFIXES)}, got {os.fspath(path)!r}")
    return suffix


@final
class MoleculeList(list[Chem.Mol | None]):
    """Molecules with numbers about each, which show as a grid in notebooks.

    A list of RDKit molecules in every respect; None stands for a point that is no molecule. Slices and sums are plain
    lists.

    Parameters
    ----------
    molecules : iterable of Mol or None
    values : mapping of str to sequence of float or None
        Numbers about each molecule: names of columns, lists as long as the molecules.
    columns : int
        Of the grid.
    highlight : sequence of int
        Molecules shown with a frame, such as the query of a search.
    title : str
        Shown above the grid.
    note : str
        What the reader should know of how the list came about.

    Attributes
    ----------
    values : dict of str to list of float or None
    columns, highlight, title, note
        As given.

    Raises
    ------
    TypeError, ValueError
        If something is no molecule, a column of values is not as long as the list, or `columns` or `highlight` are out
        of their ranges.

    Examples
    --------
    >>> found = MoleculeList([Chem.MolFromSmiles("CCO"), None], {"distance": [0.0, 1.5]})
    >>> found.smiles
    ['CCO', None]
    >>> found
    MoleculeList of 2: CCO, –
    """

    def __init__(
        self,
        molecules: Iterable[Chem.Mol | None],
        values: Mapping[str, Sequence[float | None]] | None = None,
        *,
        columns: int = 5,
        highlight: Sequence[int] = (),
        title: str = "",
        note: str = "",
    ) -> None:
        super().__init__(molecules)
        for index, mol in enumerate(self):
            if mol is not None and not isinstance(mol, Chem.Mol):
                raise TypeError(f"molecules must be RDKit molecules or None, got {type(mol).__name__} at {index}")
        self.values = {name: list(column) for name, column in (values or {}).items()}
        for name, column in self.values.items():
            if len(column) != len(self):
                raise ValueError(f"values[{name!r}] must have {len(self)} entries, one a molecule, got {len(column)}")
        if not isinstance(columns, int) or columns < 1:
            raise ValueError(f"columns must be an integer of at least 1, got {columns!r}")
        self.columns, self.highlight = columns, list(highlight)
        if any(not 0 <= index < len(self) for index in self.highlight):
            raise ValueError(f"highlight must hold indices 0…{len(self) - 1}, got {self.highlight}")
        self.title, self.note = title, note

    @property
    def smiles(self) -> list[str | None]:
        """Canonical SMILES."""
        return [None if mol is None else Chem.MolToSmiles(mol) for mol in self]

    def __repr__(self) -> str:
        shown = ", ".join(smiles or "–" for smiles in self.smiles[:8])
        return f"MoleculeList of {len(self)}: {shown}" + (", …" if len(self) > 8 else "")

    def svg(self) -> str:
        """Picture of the grid: each molecule with its values below, empty cells for None.

        Returns
        -------
        str
            An SVG document, the same for the same list. Only the first 200 molecules are drawn.
        """
        return _svg(self)

    def png(self, scale: float = 2.0) -> bytes:
        """Picture of the grid as `svg` draws it, in pixels.

        Parameters
        ----------
        scale : float
            Pixels per unit of the SVG picture.

        Returns
        -------
        bytes
        """
        return _png(self, scale)

    def show(self) -> None:
        """Show the grid in a notebook; elsewhere print the table."""
        if importlib.util.find_spec("IPython") is None or importlib.import_module("IPython").get_ipython() is None:
            print(self.table(), end="")
        else:
            importlib.import_module("IPython.display").display(self)

    def table(self) -> str:
        """Comma-separated table: SMILES and values, with a header; empty SMILES for None."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["smiles", *self.values])
        for index, smiles in enumerate(self.smiles):
            row = [column[index] for column in self.values.values()]
            writer.writerow([smiles or "", *("" if value is None else f"{value:.6g}" for value in row)])
        return text.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture (.svg, .png), the table (.csv), SMILES (.smi), or molecules with their values (.sdf).

        Parameters
        ----------
        path : path-like

        Raises
        ------
        ValueError
            If the suffix is another one.
        OSError
            If the file cannot be written.
        """
        suffix = check_suffix(path)
        if suffix == ".png":
            data = self.png()
        else:
            data = {".svg": self.svg, ".csv": self.table, ".smi": self._smi, ".sdf": self._sdf}[suffix]().encode()
        write_atomic(path, data)

    def _smi(self) -> str:
        return "".join(f"{smiles}\n" for smiles in self.smiles if smiles)

    def _sdf(self) -> str:
        text = io.StringIO()
        writer = Chem.SDWriter(text)
        for index, mol in enumerate(self):
            if mol is not None:
                mol = _flat(mol)
                mol.SetProp("_Name", Chem.MolToSmiles(mol))
                for name, column in self.values.items():
                    if column[index] is not None:
                        mol.SetProp(name, f"{column[index]:.6g}")
                writer.write(mol)
        writer.close()
        return text.getvalue()

    def _repr_html_(self) -> str:
        note = f'<p style="color:{GREY};font:13px sans-serif">{escape(self.note)}</p>' if self.note else ""
        return f'<div style="overflow-x:auto">{self.svg()}</div>{note}'


def _flat(mol: Chem.Mol) -> Chem.Mol:
    mol = Chem.Mol(mol)
    rdDepictor.SetPreferCoordGen(False)
    rdDepictor.Compute2DCoords(mol)
    rdDepictor.StraightenDepiction(mol)
    return mol


def _captions(found: MoleculeList, index: int) -> list[str]:
    lines = []
    for name, column in found.values.items():
        value = column[index]
        if value is not None:
            lines.append(f"{name} {value:.2f}" if abs(value) < 1000 else f"{name} {value:.3g}")
    return lines


def _layout(found: MoleculeList) -> tuple[int, int, int, int, int]:
    """Number of drawn molecules and columns, height of a cell, width and height of the whole."""
    n = min(len(found), MOST_SHOWN)
    columns = min(found.columns, max(n, 1))
    rows = -(-n // columns)
    height = CELL - 30 + (LABEL - 3) * len(found.values) + (6 if found.values else 0)
    top = MARGIN + (28 if found.title else 0)
    bottom = LABEL if len(found) > n else 0
    return (
        n,
        columns,
        height,
        2 * MARGIN + columns * CELL + (columns - 1) * GAP,
        top + rows * height + max(rows - 1, 0) * GAP + MARGIN + bottom,
    )


def _place(found: MoleculeList, index: int, columns: int, height: int) -> tuple[int, int]:
    row, column = divmod(index, columns)
    return MARGIN + column * (CELL + GAP), MARGIN + (28 if found.title else 0) + row * (height + GAP)


def _draw(mol: Chem.Mol, drawer: Any, scale: float = 1.0) -> None:
    options = drawer.drawOptions()
    options.clearBackground = False
    options.bondLineWidth = 1.6 * scale
    options.padding = 0.08
    options.fixedBondLength = 22.0 * scale
    options.minFontSize, options.maxFontSize = round(8 * scale), round(14 * scale)
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, _flat(mol), kekulize=True)
    drawer.FinishDrawing()


def _svg(found: MoleculeList) -> str:
    n, columns, height, width, total = _layout(found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" viewBox="0 0 {width} {total}" '
        f'font-family="{FONT}" font-size="12">',
        f'<rect width="{width}" height="{total}" fill="{PAPER}"/>',
    ]
    if found.title:
        parts.append(
            f'<text x="{MARGIN}" y="{MARGIN + 13}" font-size="15" font-weight="bold" fill="{INK}">'
            f"{escape(found.title)}</text>"
        )
    for index in range(n):
        x, y = _place(found, index, columns, height)
        marked = index in found.highlight
        parts.append(
            f'<rect x="{x}" y="{y}" width="{CELL}" height="{height}" rx="8" fill="{TINT if marked else PAPER}" '
            f'stroke="{ACCENT if marked else LINE}" stroke-width="{2 if marked else 1}"/>'
        )
        captions = _captions(found, index)
        room = height - (LABEL - 3) * len(found.values) - (6 if found.values else 0)
        mol = found[index]
        if mol is None:
            parts.append(
                f'<text x="{x + CELL / 2:g}" y="{y + room / 2:g}" text-anchor="middle" fill="{GREY}">no molecule</text>'
            )
        else:
            drawer = rdMolDraw2D.MolDraw2DSVG(CELL, room)
            _draw(mol, drawer)
            body = drawer.GetDrawingText()
            body = body[body.index("<!-- END OF HEADER -->") + len("<!-- END OF HEADER -->") : body.rindex("</svg>")]
            parts.append(f'<g transform="translate({x},{y})">{body.strip()}</g>')
        for line, caption in enumerate(captions):
            parts.append(
                f'<text x="{x + CELL / 2:g}" y="{y + room + 11 + (LABEL - 3) * line}" text-anchor="middle" '
                f'fill="{ACCENT if marked else GREY}">{escape(caption)}</text>'
            )
    if len(found) > n:
        parts.append(f'<text x="{MARGIN}" y="{total - 10}" fill="{GREY}">and {len(found) - n} more</text>')
    parts.append("</svg>")
    return "\n".join(parts)


def _png(found: MoleculeList, scale: float) -> bytes:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imread
    from matplotlib.patches import FancyBboxPatch

    n, columns, height, width, total = _layout(found)
    figure = Figure(figsize=(width / 100, total / 100), dpi=100 * scale, facecolor=PAPER)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(total, 0))
    ax.axis("off")
    point = 0.72  # of an SVG unit, at 100 units per inch
    if found.title:
        ax.text(MARGIN, MARGIN + 13, found.title, fontsize=15 * point, fontweight="bold", color=INK)
    for index in range(n):
        x, y = _place(found, index, columns, height)
        marked = index in found.highlight
        box = FancyBboxPatch(
            (x, y),
            CELL,
            height,
            boxstyle="round,pad=0,rounding_size=8",
            facecolor=TINT if marked else PAPER,
            edgecolor=ACCENT if marked else LINE,
            linewidth=(2 if marked else 1) * point,
        )
        ax.add_patch(box)
        room = height - (LABEL - 3) * len(found.values) - (6 if found.values else 0)
        mol = found[index]
        if mol is None:
            ax.text(x + CELL / 2, y + room / 2, "no molecule", fontsize=12 * point, color=GREY, ha="center")
        else:
            drawer = rdMolDraw2D.MolDraw2DCairo(round(CELL * scale), round(room * scale))
            _draw(mol, drawer, scale)
            image = np.asarray(imread(io.BytesIO(drawer.GetDrawingText()), format="png"))
            ax.imshow(image, extent=(x, x + CELL, y + room, y), interpolation="none", zorder=3, aspect="auto")
        for line, caption in enumerate(_captions(found, index)):
            ax.text(
                x + CELL / 2,
                y + room + 11 + (LABEL - 3) * line,
                caption,
                fontsize=12 * point,
                color=ACCENT if marked else GREY,
                ha="center",
            )
    if len(found) > n:
        ax.text(MARGIN, total - 10, f"and {len(found) - n} more", fontsize=12 * point, color=GREY)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
