"""Rows of video lists, and parsing of lists without a header."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import VIDEOS
from seqclf.data.frames.span import Unit
from seqclf.data.tables.label_cells import labels_in, only_label
from seqclf.data.tables.table import numbered_lines, read_text, whole_number
from seqclf.runtime.text import counted

_GAP, _NUMBER = r"(?:\s*[,;]\s*|\s+)", r"\d{1,18}"
_VIDEO = rf".+(?i:{'|'.join(map(re.escape, VIDEOS))})\"?"
_SHAPES = (  # what a line has after the path, and its pattern, by precedence
    ("frames and a number", rf"(?P<path>.+?){_GAP}(?P<frames>{_NUMBER}){_GAP}(?P<label>-?{_NUMBER})"),
    ("a number", rf"(?P<path>.+?){_GAP}\"?(?P<label>-?{_NUMBER}(?:\.0*)?)\"?"),
    ("no label", rf"(?P<path>{_VIDEO}|[^\s,;]+)"),
    ("a name", rf"(?P<path>{_VIDEO})(?P<gap>{_GAP})(?P<label>[^,;\s].*)"),
    ("a name", r"(?P<path>[^,;\t]+?)(?P<gap>\s*[,;\t]\s*)(?P<label>[^,;\s].*)"),
    ("a name", r"(?P<path>\S+)\s+(?P<label>\S+)"),
)
_SHAPES_OF = {
    "auto": {shape for shape, _ in _SHAPES},
    "lrcn": {"a number"},
    "ucf101": {"a number", "no label"},
    "rawframes": {"frames and a number"},
    "plain": {"a number", "a name", "no label"},
}
_WITH_NUMBERS = {"a number", "frames and a number"}
_NUMBERS = rf"(?P<path>{_VIDEO}|.+?)(?P<labels>(?:{_GAP}{_NUMBER})*)"
_SEVERAL = re.compile(rf".+?(?:{_GAP}{_NUMBER}){{3,}}")
_TWO = re.compile(rf"{_VIDEO}(?:{_GAP}{_NUMBER}){{2}}|.+?{_GAP}0+{_GAP}{_NUMBER}")  # of a file, or with 0 before one
_HMDB51 = re.compile(r"(.+)_test_split(\d)\.txt")
_LONGEST = 4_000  # characters of a line: the patterns can take minutes on longer lines


@dataclass
class Row:
    """A row of a list.

    Attributes:
        where: the file and line, for error messages.
        line: the line number, from 1.
        name: the path of the video as written.
        label: the class number or the class name.
        folder: the name of the video's parent folder; "" if the path has none.
        places: paths from the root where the video may be, in order of precedence.
        frames: the number of frames, if the list has it.
        written: the label as written.
        class_name: the class name in a column beside a numeric label, or "".
        split: the content of the split column, or None if there is no such column.
        group: the content of the group column, or None.
        span: start and end of a clip inside the video, or None for the whole video.
        labels: the classes as written, if a row may have several.
        unknown: the classes that may or may not apply.
    """

    where: str
    line: int
    name: str
    label: int | str
    folder: str
    places: list[str]
    frames: int | None = None
    written: str = ""
    class_name: str = ""
    split: str | None = None
    group: str | None = None
    span: tuple[float, float] | None = None
    labels: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass
class Rows:
    """The rows of a list.

    Attributes:
        form: the form of the list.
        shape: what a line has after the path: "a number", "a name", "frames and a number" or "no label".
        rows: the rows.
        notes: what was skipped, for the description.
        header: the columns that are read, for the description; "" without a header.
        split_column: the name of the split column, or None.
        group_column: the name of the group column, or None.
        unit: the unit of the spans, or None.
        classes: the classes that the header names, if there is a column per class.
    """

    form: str
    shape: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    header: str = ""
    split_column: str | None = None
    group_column: str | None = None
    unit: Unit | None = None
    classes: list[str] | None = None


def line_rows(path: Path, form: str, separator: str | None, known: bool = False) -> Rows:
    """The rows of a list without a header.

    Args:
        path: the list.
        form: "auto", "lrcn", "ucf101", "rawframes" or "plain".
        separator: what separates the class names of a video with several; None if it has one class.
        known: whether the class names are known, so that any text may be one.

    Raises:
        SeqclfError: a line can't be read, or differs in shape from the first. The message names file and line.
    """
    if _HMDB51.fullmatch(path.name):
        raise SeqclfError(
            f"{path}: is the file of one class of HMDB51, whose numbers mean training (1) and test (2): give the files "
            f"of all classes as {path.parent / ('*' + path.name[path.name.rindex('_test_split') :])!s}"
        )
    rows: list[Row] = []
    first = ""
    for line, text in _checked_lines(path):
        where = f"{path}, line {line}"
        shape, row = (_line_row if separator is None else _several)(where, line, text, form, separator)
        if separator is not None and shape == "a name":
            row.labels = labels_in(row.written, separator, where, known)
        elif shape == "a name" and not known:
            row.label = row.written = only_label(row.written, where)
        first = first or shape
        if shape != first:
            way = "set form=, or columns= if the first line is a header"
            way += ", or multi_label=True for several labels" * {shape, first}.issubset(_WITH_NUMBERS)
            raise SeqclfError(
                f"{where}: {text!r} is a path with {shape}, but line {rows[0].line} has {first}: all lines must have "
                f"the same form ({way})"
            )
        rows.append(row)
    if form == "auto":
        form = "rawframes" if rows[0].frames is not None else "plain"
    return Rows(form, first, rows, comment_note(path))


def path_lines(path: Path) -> Rows:
    """The rows of a list of paths without a header: the video is the longest prefix of a line that exists."""
    rows = []
    for line, text in _checked_lines(path):
        cuts = [len(text), *(gap.start() for gap in reversed(list(re.finditer(_GAP, text))))]
        places = [place for cut in cuts if cut for place in make_row("", line, _unquoted(text[:cut])).places[:1]]
        rows.append(Row(f"{path}, line {line}", line, text, "", "", places))
    return Rows("paths", "no label", rows, comment_note(path))


def hmdb51_rows(pattern: Path) -> Rows:
    """The rows of the split files of HMDB51, one per class: ``<video> 1`` for training, 2 for test, 0 for neither.

    Args:
        pattern: their path, with ``*`` for the name of the class.

    Raises:
        SeqclfError: the files have another form, or are of several splits.
    """
    rows, unused, splits = [], 0, dict[str, Path]()
    for path in sorted(pattern.parent.glob(pattern.name)):
        match = _HMDB51.fullmatch(path.name)
        splits.setdefault("" if match is None else match[2], path)
        if len(splits) > 1 and "" not in splits:
            one, other = (file.name for file in splits.values())
            raise SeqclfError(
                f"{pattern}: {one} and {other} are of different splits: give one split, such as "
                f"{pattern.parent / '*_test_split1.txt'!s}"
            )
        for line, text in numbered_lines(path, comments=False):  # names of videos begin with "#"
            name, _, number = text.rpartition(" ")
            if match is None or not name or number not in ("0", "1", "2"):
                raise SeqclfError(f"{path}, line {line}: {text!r}, expected '<video> <0, 1 or 2>' (HMDB51)")
            row = make_row(f"{path}, line {line}", line, f"{match[1]}/{name.strip()}")
            row.split = ("", "train", "test")[int(number)]
            unused += number == "0"
            rows += [row] if row.split else []
    notes = [f"{unused:,} unused"] if unused else []
    return Rows("hmdb51", "no label", rows, notes, split_column="number (1 train, 2 test)")


def make_row(where: str, line: int, name: str, label: int | str | None = None, written: str = "") -> Row:
    """A row. Without a label, the class is the name of the video's parent folder."""
    place = posixpath.normpath(name if "/" in name else name.replace("\\", "/"))
    above, last = posixpath.split(place)
    folder = posixpath.basename(above)
    places = [place, last] if above else [place]
    return Row(where, line, name, folder if label is None else label, folder, places, written=written)


def comment_note(path: Path) -> list[str]:
    """A note on the comment lines of a file, which are skipped."""
    count = sum(line.lstrip().startswith("#") for line in read_text(path).split("\n"))
    return [counted(count, "comment line")] if count else []


def _line_row(where: str, line: int, text: str, form: str, separator: str | None) -> tuple[str, Row]:
    """The shape and the row of a line with one label."""
    if _SEVERAL.fullmatch(text):
        raise SeqclfError(
            f"{where}: {text!r} has three numbers or more after the path, expected one label: for several labels set "
            "multi_label=True; clips inside videos need a header, such as path,start,end,label"
        )
    if form != "rawframes" and _TWO.fullmatch(text):
        raise SeqclfError(
            f"{where}: {text!r} may be a video, its number of frames and its label, or a video and two labels: set "
            "form='rawframes', or multi_label=True"
        )
    matches = ((shape, re.fullmatch(rule, text)) for shape, rule in _SHAPES if shape in _SHAPES_OF[form])
    shape, match = next(((shape, match) for shape, match in matches if match), ("", None))
    if match is None:
        way = "" if form != "auto" else " (separate the cells of a header and its rows by commas, semicolons or tabs)"
        raise SeqclfError(f"{where}: {text!r} is not in the form {form}: expected a path and its label{way}")
    parts = match.groupdict()
    label: int | str | None = None
    cell, gap = (parts.get("label") or "").rstrip(",;"), (parts.get("gap") or "").strip(" ")
    written = _unquoted(cell)
    if gap and gap in cell and written == cell and gap != separator:
        header = f"; for a header set columns={{'path': {parts['path']!r}}}" if line == 1 else ""
        raise SeqclfError(
            f"{where}: {text!r} has more than two cells: set columns= to their numbers from 0, such as "
            f"{{'path': 0, 'label': 1}}, or quote the label{header}"
        )
    if "label" in parts:
        number = None if shape == "a name" else whole_number(written)
        label = written if number is None else number
    row = make_row(where, line, _unquoted(parts["path"]), label, written)
    row.frames = int(parts["frames"]) if "frames" in parts else None
    if row.label == "" or str(row.label).lower() == "nan":
        raise SeqclfError(f"{where}: {text!r} has no label and no parent folder that names its class")
    return shape, row


def _several(where: str, line: int, text: str, form: str, separator: str | None) -> tuple[str, Row]:
    """The shape and the row of a line with any number of labels: numbers, or names in one word."""
    match = re.fullmatch(_NUMBERS, text)
    numbers = re.findall(_NUMBER, match["labels"]) if match else []
    if match is None or (not numbers and re.fullmatch(_VIDEO, text) is None):
        return _line_row(where, line, text, "plain", separator)
    has_frames = form == "rawframes"
    if form == "auto" and len(numbers) > 1 and re.fullmatch(_VIDEO, match["path"]) is None:
        raise SeqclfError(
            f"{where}: {text!r} may be a path and {len(numbers)} labels, or a path, its number of frames and its "
            "labels: set form='plain' or form='rawframes'"
        )
    if has_frames and not numbers:
        raise SeqclfError(
            f"{where}: {text!r} is not in the form rawframes: expected a path, its number of frames, labels"
        )
    row = make_row(where, line, _unquoted(match["path"]), "")
    row.frames = int(numbers[0]) if has_frames else None
    row.labels = numbers[has_frames:]
    return "frames and a number" if has_frames else "a number", row


def _checked_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list without comments, checked for their length."""
    lines = numbered_lines(path)
    for number, line in lines:
        if len(line) > _LONGEST:
            raise SeqclfError(f"{path}, line {number}: has {len(line):,} characters, expected a list of videos")
    return lines


def _unquoted(text: str) -> str:
    return text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == '"' else text
