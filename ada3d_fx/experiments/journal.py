"""The rows of a long run: appended as they come, by several processes, and put in order at the end."""

from __future__ import annotations

import array
import csv
import glob
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .. import files
from ..errors import Ada3DError
from ..provenance import made_from
from ..report import reading

ENDINGS = (".jsonl", ".csv")
HINT = "take the file away, and its rows are made again"
Row = Mapping[str, Any]


class Journal:
    """The rows of a run, of which each has its place in the result.

    While the run goes on, process R appends to ``NAME.rankR.jsonl``, a row a line, and
    ``NAME.made_from.json`` says what the rows are made from. At the end all rows are in ``NAME.jsonl``
    or ``NAME.csv``, in order, and the parts are gone. A killed run goes on with what the parts hold,
    in however many processes.

    Args:
        out: the result, a .jsonl or a .csv file.
        size: how many rows there will be.
        place: the place of a row, from 0; raises ValueError for one of another run.

    Raises:
        Ada3DError: another ending.
        OSError: the result cannot be written.
    """

    def __init__(self, out: str | Path, size: int, place: Callable[[Row], int]):
        self.out, self.size, self.place = Path(out), size, place
        if self.out.suffix not in ENDINGS:
            raise Ada3DError(f"{out}: rows are written to a .jsonl or a .csv file")
        files.check(self.out)

    @property
    def record_file(self) -> Path:
        """What the rows are made from."""
        return self._beside("made_from.json")

    def part(self, rank: int) -> Path:
        """The file to which a process appends."""
        return self._beside(f"rank{rank}.jsonl")

    def parts(self) -> list[Path]:
        """The files to which processes have appended."""
        pattern = f"{glob.escape(self.out.stem)}.rank*.jsonl"
        return sorted(self.out.parent.glob(pattern))

    def _beside(self, ending: str) -> Path:
        return self.out.with_name(f"{self.out.stem}.{ending}")

    # ------------------------------------------------------------------------------- the start

    def check_free(self) -> None:
        """Check, in one process before all others, that no other run makes these rows.

        A process of a killed run may have outlived what started it.

        Raises:
            Ada3DError: another run's process is appending rows.
        """
        pattern = f".{glob.escape(self.out.stem)}.rank*.lock"
        for path in sorted(self.out.parent.glob(pattern)):
            with files.locked(path) as holder:
                self._refuse(holder)

    @contextmanager
    def held(self, rank: int) -> Iterator[None]:
        """Keep other runs from these rows until the block ends.

        Raises:
            Ada3DError: another run's process is appending rows.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        lock = self.out.with_name(f".{self.out.stem}.rank{rank}.lock")
        with files.locked(lock) as holder:
            self._refuse(holder)
            yield
            if self.complete:
                lock.unlink(missing_ok=True)

    def _refuse(self, holder: int | None) -> None:
        if holder is not None:
            number = f"process {holder}" if holder else "a process"
            raise Ada3DError(
                f"{self.out}: {number} of another run is making its rows, and may have outlived what "
                "started it; wait for it or end it, and start again"
            )

    def begin(self, record: Mapping[str, Any], redo: bool = False) -> None:
        """Make ready to begin or to go on, in one process before all others.

        Args:
            record: what the rows are made from.
            redo: set aside, as NAME.old-1, what was made from something else.

        Raises:
            Ada3DError: what is there was made from something else, and not ``redo``.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        there = [path for path in (self.out, *self.parts(), self.record_file) if path.exists()]
        differences = made_from.differences(self.record(), record) if there else []
        if differences and not redo:
            told = "\n".join(f"  {line}" for line in made_from.shortened(differences))
            raise Ada3DError(
                f"{there[0]}: made from something else:\n{told}\nTry --redo, which makes the rows anew "
                "and keeps the old ones beside them (NAME.old-1); or another --out; or the old options"
            )
        for path in there if differences else ():
            made_from.set_aside(path)
        for path in self.parts():
            files.drop_unfinished_line(path)
        if differences or not there:
            self.note("made_from", record)

    def record(self) -> Any:
        """What the rows that are there are made from; None: nothing says it."""
        return self._content().get("made_from")

    def note(self, key: str, value: Any) -> None:
        """Keep what a later start needs not find out again, beside what the rows are made from."""
        content = {**self._content(), key: value}
        files.write_text(self.record_file, json.dumps(content, indent=2) + "\n")

    def noted(self, key: str) -> Any:
        """What was kept, or None."""
        return self._content().get(key)

    def _content(self) -> dict[str, Any]:
        try:
            content = json.loads(self.record_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def complete(self) -> bool:
        """Whether the result is there."""
        return self.out.exists()

    # ------------------------------------------------------------------------------- the rows

    def add(self, row: Row, rank: int = 0) -> None:
        """Append a row to a process's part."""
        files.append(self.part(rank), json.dumps(row) + "\n")

    def places(self) -> tuple[array.array, array.array]:
        """Find the rows that are there: of each place its part, -1 for none, and where it begins."""
        part = array.array("h", [-1]) * self.size
        start = array.array("q", [0]) * self.size
        for number, path in enumerate(self.parts()):
            offset = 0
            with path.open("rb") as file:
                for line_number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):  # not of a process that is writing it now
                        place = self._place(line, f"{path}, line {line_number}")
                        part[place], start[place] = number, offset
                    offset += len(line)
        return part, start

    def _place(self, line: bytes, where: str) -> int:
        try:
            row = json.loads(line)
            reading.check(row, {})
            place = self.place(row)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise Ada3DError(f"{where} is no row of this run: {error}; {HINT}") from error
        return place

    def merge(self, columns: Sequence[str]) -> None:
        """Put all rows in order, into the result, and remove the parts.

        Args:
            columns: of a .csv file.

        Raises:
            Ada3DError: rows are missing, as parts on other machines' disks are.
        """
        paths = self.parts()
        part, start = self.places()
        missing = part.count(-1)
        if missing:
            raise Ada3DError(
                f"{missing} of {self.size} rows are missing beside {self.out}; is it in a folder that "
                "all machines share? Run it again, and these are made"
            )
        with ExitStack() as stack:
            opened = [stack.enter_context(path.open("rb")) for path in paths]
            with files.whole(self.out) as unfinished, unfinished.open("wb") as file:
                if self.out.suffix == ".csv":
                    file.write(_csv_line(columns))
                for place in range(self.size):
                    source = opened[part[place]]
                    source.seek(start[place])
                    line = source.readline()
                    if self.out.suffix == ".csv":
                        line = _csv_line(_cells(json.loads(line), columns))
                    file.write(line)
        self.remove_parts()

    def remove_parts(self) -> None:
        """Remove the parts; the result has what they have."""
        for path in self.parts():
            path.unlink()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read the result's rows; of a .csv file, cells that are numbers are numbers."""
        with self.out.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            if self.out.suffix == ".csv":
                for row in csv.DictReader(file):
                    yield {name: _value(cell) for name, cell in row.items()}
            else:
                yield from map(json.loads, file)


def _cells(row: Row, columns: Sequence[str]) -> list[Any]:
    """A row's cells; lists are words with blanks between them."""
    values = [row.get(name) for name in columns]
    return [" ".join(map(str, v)) if isinstance(v, list) else v for v in values]


def _value(cell: str) -> Any:
    if not cell:
        return None
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _csv_line(cells: Sequence[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")
