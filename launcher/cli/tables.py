"""Tables that fit the terminal they are shown in: what matters least goes first when it is narrow."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

_PADDING = 3
_LEAST = 12
"""A column of text may be folded to this width before another is left out."""


class Column(NamedTuple):
    """A heading, and how much it matters: 0 is never left out."""

    name: str
    matters: int = 0
    number: bool = True
    """Numbers stand to the right and are never folded."""


def console(*, error: bool = False) -> Console:
    """Where output goes: plain and as wide as need be where it is not a terminal. NO_COLOR is obeyed by rich."""
    return Console(file=sys.stderr if error else sys.stdout, highlight=False)


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, title: str = "") -> Table:
    """A table of `rows` in which as many columns are shown as `width` has room for."""
    shown = list(range(len(columns)))
    while _need(columns, rows, shown) > width and (droppable := [i for i in shown if columns[i].matters]):
        shown.remove(max(droppable, key=lambda index: columns[index].matters))
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index in shown:
        column = columns[index]
        table.add_column(
            column.name,
            justify="right" if column.number else "left",
            no_wrap=column.number,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    return table


def _need(columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: list[int]) -> int:
    total = 0
    for index in shown:
        widest = max(cell_len(text) for text in (columns[index].name, *(row[index] for row in rows)))
        total += _PADDING + (widest if columns[index].number or not columns[index].matters else min(widest, _LEAST * 2))
    return total


def dollars(usd: float | None) -> str:
    """With cents, the sign first; an unknown price is said."""
    if usd is None:
        return "unknown"
    return f"-${-usd:,.2f}" if round(usd, 2) < 0 else f"${abs(usd):,.2f}"
