"""Tables that fit the terminal: if it is too narrow, text wraps between words, then columns are dropped by rank.

No row is lost, and no cell or name is cut: a column is shown in full, or it is dropped and a line on stderr names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from orchestrator.cli.streams import as_written
from orchestrator.core.errors import escape_controls

__all__ = ["Grid", "Results", "left_out"]

SCORES = ("macro F1", "accuracy", "F1", "score", "state")
"""Headings that people look for first: kept as long as there is room."""

PROSE = 24
"""Width, in cells, that a column of prose may shrink to; a longer word makes it wider, up to WORD."""

WORD = 40
NARROWEST = 8
"""Cells that an essential column keeps in any case."""

GAP = 3  # cells between two columns, of the rule's box
EDGE = 2  # at both ends


@dataclass(frozen=True)
class _Row:
    cells: tuple[Any, ...]
    style: Any
    end_section: bool


class Grid(Table):
    """A plain table, its words printed as they are: a file may be called `IMG[copy].jpg`.

    Args:
        title: the line above the table; may be empty.
        headings: the columns' headings; the first column is left-aligned, the others right.
        keep: headings of the columns to drop last, as in `console.grid`.
        text: headings of the columns of prose.
        essential: headings of the columns that are never dropped, prose too: without them the table says nothing.
    """

    def __init__(
        self,
        title: str,
        headings: Sequence[str],
        keep: Sequence[str] = (),
        text: Sequence[str] = (),
        essential: Sequence[str] = (),
    ) -> None:
        super().__init__(
            title=Text(title, style="bold") if title else None, title_justify="left", title_style="",
            box=box.SIMPLE_HEAD, pad_edge=False,
        )  # fmt: skip
        text = (*text, *essential)
        self._name, self._keep, self._prose, self._lines = title, tuple(keep), text, list[_Row]()
        self._essential = tuple(essential)
        for number, heading in enumerate(headings):
            side: JustifyMethod = "left" if number == 0 or heading in text else "right"
            self.add_column(heading, justify=side, overflow="fold", no_wrap=heading not in text)

    def add_row(self, *cells: Any, style: Any = None, end_section: bool = False) -> None:
        """A row; fewer cells than columns leave the others empty."""
        shown_cells = tuple(
            Text(as_written(escape_controls(cell).replace("\n", "\\n"))) if isinstance(cell, str) else cell
            for cell in cells
        )
        self._lines.append(_Row(shown_cells, style, end_section))
        super().add_row(*shown_cells, style=style, end_section=end_section)

    def fitted(self, console: Console, width: int) -> Grid:
        """This table with the columns for which there is room."""
        indices = list(range(len(self.columns)))
        for index in self._order():
            if self._least(console, indices) <= width:
                break
            indices.remove(index)
        return self._of(indices, console, width)

    def headings(self) -> list[str]:
        """The headings of the columns that are shown, in order."""
        return [str(column.header) for column in self.columns]

    def _order(self) -> list[int]:
        """Columns that may go, the first to go first."""
        names = self.headings()
        ranked = [*self._keep, *(name for name in SCORES if name not in self._keep)]
        rank = {name: number for number, name in enumerate(ranked)}
        may_go = [index for index in range(1, len(names)) if names[index] not in self._essential]
        return sorted(may_go, key=lambda index: (-rank.get(names[index], len(rank)), -index))

    def _least(self, console: Console, indices: Sequence[int]) -> int:
        return sum(self._width(console, index, least=True) for index in indices) + GAP * (len(indices) - 1) + EDGE

    def _width(self, console: Console, index: int, least: bool) -> int:
        """Cells that a column needs, at least where prose may wrap."""
        column = self.columns[index]
        cells = [line.cells[index] for line in self._lines if index < len(line.cells)]
        widths = [cell_len(str(column.header))]
        widest_word = 0
        for cell in cells:
            if isinstance(cell, Text):
                widths += [cell_len(part) for part in cell.plain.splitlines()]
                widest_word = max([widest_word, *(cell_len(word) for word in cell.plain.split())])
            elif cell is not None:
                widths.append(console.measure(cell).maximum)
        widest = max(widths)
        if least and widths[0] < widest and self._is_prose(index):
            return min(widest, max(PROSE, widths[0], min(widest_word, WORD)))
        return widest

    def _is_prose(self, index: int) -> bool:
        """Whether a column may wrap between words: one named as prose, or to the left though not the first."""
        return str(self.columns[index].header) in self._prose or (index > 0 and self.columns[index].justify == "left")

    def _of(self, indices: Sequence[int], console: Console, width: int) -> Grid:
        """A table of some columns, prose as wide as there is room."""
        names = self.headings()
        fitted = Grid(self._name, [names[index] for index in indices], self._keep, self._prose, self._essential)
        fitted.show_header, fitted.row_styles = self.show_header, self.row_styles
        widths = self._widths(console, indices, width)
        for new, index in zip(fitted.columns, indices, strict=True):
            old = self.columns[index]
            new.justify, new.style, new.header_style = old.justify, old.style, old.header_style
            new.min_width = new.width = widths[index]
            new.no_wrap = widths[index] >= self._width(console, index, least=False) or not self._is_prose(index)
        for line in self._lines:
            cells = [line.cells[index] if index < len(line.cells) else "" for index in indices]
            fitted.add_row(*cells, style=line.style, end_section=line.end_section)
        if self._name:  # a title is prose: it wraps at the terminal's edge and not at the table's
            fitted.min_width = min(cell_len(self._name), max(width, 1))
        return fitted

    def _widths(self, console: Console, indices: Sequence[int], width: int) -> dict[int, int]:
        """Cells of some columns: prose as wide as there is room, essential prose narrower than its words where there is none."""
        least, whole = ({index: self._width(console, index, of) for index in indices} for of in (True, False))
        room = width - self._least(console, indices)
        for index in indices:
            more = max(0, min(whole[index] - least[index], room))
            least[index] += more
            room -= more
        essential = [index for index in indices if str(self.columns[index].header) in self._essential]
        while room < 0 and essential and max(least[index] for index in essential) > NARROWEST:
            least[max(essential, key=lambda index: least[index])] -= 1
            room += 1
        return least

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        fitted = self.fitted(console, options.max_width)
        widths = [column.width or 0 for column in fitted.columns]
        needed = max(options.max_width, sum(widths) + GAP * (len(widths) - 1) + EDGE)  # one may be wider than all
        yield from Table.__rich_console__(fitted, console, options.update(max_width=needed))


class Results(Console):
    """A console that says which columns it left out.

    Attributes:
        on_dropped: says it; None: nothing is said.
    """

    on_dropped: Callable[[str], None] | None = None

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints; a line on stderr names columns that have no room. A file gets no blanks at lines' ends."""
        if self.file.isatty():
            super().print(
                *objects, **{"crop": False, **options}
            )  # a name wider than the terminal goes on in the next line
        else:
            with self.capture() as captured:
                super().print(*objects, **options)
            self.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        for item in objects:
            if self.on_dropped is not None and isinstance(item, Grid) and (names := list(left_out(item, self))):
                self.on_dropped(
                    f"no room here for {', '.join(names)}: a wider terminal shows them, and so does `| less -S`."
                )


def left_out(table: Grid, console: Console) -> Iterator[str]:
    """The headings of a table's columns that a console has no room for."""
    shown = table.fitted(console, console.width).headings()
    for name in table.headings():
        if name in shown:
            shown.remove(name)
        elif name:
            yield name
