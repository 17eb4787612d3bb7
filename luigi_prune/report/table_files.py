"""Tables of a report as files: CSV for spreadsheets, LaTeX (booktabs) for papers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from luigi_prune.report.cells import Cell, Table, whole

LATEX_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "±": r"$\pm$", "≥": r"$\geq$",
    "≤": r"$\leq$", "≈": r"$\approx$", "→": r"$\to$", "−": "$-$", "–": "--", "<": r"$<$", ">": r"$>$", "…": r"\dots{}",
    "ℓ": r"$\ell$", "∞": r"$\infty$", "α": r"$\alpha$", "β": r"$\beta$", "δ": r"$\delta$", "ε": r"$\epsilon$",
    "σ": r"$\sigma$", "·": r"$\cdot$", "²": "$^2$",
}  # fmt: skip


def write_tables(folder: Path, tables: Sequence[Table]) -> None:
    """Write every table as `<name>.csv` and `<name>.tex` into a new folder."""
    folder.mkdir(parents=True)
    for table in tables:
        with (folder / f"{table.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table.columns)
            writer.writerows([whole(cell) for cell in row] for row in table.rows)
        (folder / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")


def latex(table: Table) -> str:
    """Return a `tabular` between the rules of booktabs; intervals are in small print."""
    lines = [rf"% {table.title}. {table.caption}".replace("\n", " ")]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\toprule"]
    lines += [" & ".join(escaped(column) for column in table.columns) + r" \\", r"\midrule"]
    lines += [" & ".join(_cell(cell) for cell in row) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    """Return text with the special characters of LaTeX escaped."""
    return "".join(LATEX_SIGNS.get(letter, letter) for letter in text)


def _cell(cell: str) -> str:
    note = cell.note if isinstance(cell, Cell) else ""
    return escaped(cell) + (rf" {{\scriptsize [{escaped(note)}]}}" if note else "")
