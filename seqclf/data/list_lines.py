"""The lines of a list of videos, in the forms people have, as rows: a path, and a label as it stands there."""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.source import VIDEOS

FORMS = ("auto", "lrcn", "ucf101", "rawframes", "plain", "csv", "kinetics")

_GAP, NUMBER = r"(?:\s*[,;]\s*|\s+)", r"\d{1,18}"
_VIDEO = rf".+(?i:{'|'.join(map(re.escape, VIDEOS))})\"?"
_SHAPES = (  # of a line, by precedence
    ("frames and a number", rf"(?P<path>.+?){_GAP}(?P<frames>{NUMBER}){_GAP}(?P<label>-?{NUMBER})"),
    ("a number", rf"(?P<path>.+?){_GAP}\"?(?P<label>-?{NUMBER})\"?"),
    ("no label", rf"(?P<path>{_VIDEO}|[^\s,;]+)"),
    ("a name", rf"(?P<path>{_VIDEO}){_GAP}(?P<label>.+)"),
    ("a name", r"(?P<path>[^,;\t]+?)\s*[,;\t]\s*(?P<label>.+)"),
    ("a name", r"(?P<path>\S+)\s+(?P<label>\S+)"),
)
_SHAPES_OF = {
    "auto": {shape for shape, _ in _SHAPES},
    "lrcn": {"a number"},
    "ucf101": {"a number", "no label"},
    "rawframes": {"frames and a number"},
    "plain": {"a number", "a name", "no label"},
}
_PATHS = (  # what the column of the videos is called, by precedence
    *("path", "video_path", "clip_path", "file", "filename", "file_name", "video", "video_name", "clip_name"),
    *("clip", "name", "youtube_id", "video_id", "id"),
)
_LABELS = ("label", "class", "class_name", "label_name", "category", "action", "tag")
_LONGEST = 4_000  # characters of a line; some texts beyond it would take the rules above minutes


@dataclass
class Row:
    """A line as it is written.

    Attributes:
        line: its number, from 1.
        name: the video, as the list has it.
        label: a number as it stands there, or a class's name.
        folder: the folder that the video is in, "" where the list names none.
        places: where the video may be, from the root on, by precedence.
        frames: how many it has, where the line says so.
    """

    line: int
    name: str
    label: int | str
    folder: str
    places: list[str]
    frames: int | None = None


def lines_of(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, and their numbers from 1; at least one.

    Raises:
        SeqclfError: the file is missing, empty or no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SeqclfError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SeqclfError(f"{path}: not a list that can be read, as text in UTF-8 ({error})") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise SeqclfError(f"{path}: is empty")
    for number, line in lines:
        if len(line) > _LONGEST:
            raise SeqclfError(f"{path}, line {number}: is {len(line):,} characters long, so this is no list")
    return lines


def rows_of(path: Path, form: str) -> tuple[str, str, list[Row]]:
    """The form of a list, what its lines say of labels ("a number", "a name", ...), and its rows.

    Raises:
        SeqclfError: with the file and the line, where one can't be understood, or reads as of another form.
    """
    lines = lines_of(path)
    columns = _columns(lines[0][1])
    if form == "kinetics" or (form == "auto" and "youtube_id" in columns):
        return _csv_rows(path, lines, "kinetics")
    if form == "csv" or (form == "auto" and _named(columns, _PATHS) and _named(columns, _LABELS)):
        return _csv_rows(path, lines, "csv")
    rows: list[Row] = []
    first = ""
    for line, text in lines:
        matches = ((shape, re.fullmatch(rule, text)) for shape, rule in _SHAPES if shape in _SHAPES_OF[form])
        shape, match = next(((shape, match) for shape, match in matches if match), ("", None))
        if match is None:
            raise SeqclfError(f"{path}, line {line}: {text!r} can't be read in the form {form}: a path, then its label")
        first = first or shape
        if shape != first:
            raise SeqclfError(
                f"{path}, line {line}: {text!r} reads as a path with {shape}, but line {rows[0].line} has {first}; "
                "one form is expected throughout (form= says which)"
            )
        parts = match.groupdict()
        label: int | str | None = None
        if "label" in parts:
            label = _unquoted(parts["label"]) if shape == "a name" else int(parts["label"])
        frames = int(parts["frames"]) if "frames" in parts else None
        rows.append(_row(line, _unquoted(parts["path"]), label, frames))
        if rows[-1].label == "":
            raise SeqclfError(f"{path}, line {line}: {text!r} has no label, and no folder to tell its class")
    return form, first, rows


def path_rows_of(path: Path) -> list[Row]:
    """The rows of a list of paths: any beginning of a line may be the video, the longest comes first."""
    rows = []
    for line, text in lines_of(path):
        cuts = [len(text), *(gap.start() for gap in reversed(list(re.finditer(_GAP, text))))]
        places = [place for cut in cuts if cut for place in _row(line, _unquoted(text[:cut]), "").places[:1]]
        rows.append(Row(line, text, "", "", places))
    return rows


def _row(line: int, name: str, label: int | str | None, frames: int | None = None) -> Row:
    """A row of a path; without a label the class is its folder's name."""
    place = posixpath.normpath(name if "/" in name else name.replace("\\", "/"))
    above, last = posixpath.split(place)
    folder = posixpath.basename(above)
    return Row(line, name, folder if label is None else label, folder, [place, last] if above else [place], frames)


def _unquoted(text: str) -> str:
    return text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == '"' else text


def _delimiter(text: str) -> str:
    return max(",;\t", key=text.count)


def _columns(text: str) -> list[str]:
    return [column.strip(' "').lower() for column in text.split(_delimiter(text))]


def _named(columns: list[str], names: Sequence[str]) -> str | None:
    """The first of these names that a column has."""
    return next((name for name in names if name in columns), None)


def _csv_rows(path: Path, lines: list[tuple[int, str]], form: str) -> tuple[str, str, list[Row]]:
    """The rows of a CSV, whose first line names the columns; labels are numbers where all of them are."""
    head = lines[0][1]
    columns = _columns(head)
    videos, labels = (
        ("youtube_id", "label") if form == "kinetics" else (_named(columns, _PATHS), _named(columns, _LABELS))
    )
    if videos is None or labels is None or not {videos, labels} <= set(columns):
        expected = "label and youtube_id" if form == "kinetics" else "path and label"
        raise SeqclfError(f"{path}, line {lines[0][0]}: expected the columns {expected}, not {head!r}")
    rows = []
    for line, text in lines[1:]:
        try:
            values = next(csv.reader([text], delimiter=_delimiter(head), skipinitialspace=True))
        except csv.Error as error:
            raise SeqclfError(f"{path}, line {line}: {text!r}: no CSV ({error})") from None
        cells = dict(zip(columns, map(str.strip, values), strict=False))
        video, label = cells.get(videos, ""), cells.get(labels, "")
        if len(values) != len(columns) or not video or not label:
            raise SeqclfError(f"{path}, line {line}: {text!r}: expected {', '.join(columns)}")
        rows.append(_kinetics_row(path, line, text, cells) if form == "kinetics" else _row(line, video, label))
    if not rows:
        raise SeqclfError(f"{path}: names no video")
    if form == "csv" and all(re.fullmatch(f"-?{NUMBER}", str(row.label)) for row in rows):
        for row in rows:
            row.label = int(row.label)
        return form, "a number", rows
    return form, "a name", rows


def _kinetics_row(path: Path, line: int, text: str, cells: dict[str, str]) -> Row:
    """A row of Kinetics; a video is named by its id and times, or its id, in a folder of its class or not."""
    video, label = cells["youtube_id"], cells["label"]
    names = [video]
    try:
        names.insert(0, f"{video}_{int(float(cells['time_start'])):06d}_{int(float(cells['time_end'])):06d}")
    except KeyError:
        pass  # a list without times
    except (ValueError, OverflowError):
        raise SeqclfError(f"{path}, line {line}: {text!r}: times are numbers of seconds") from None
    folders = dict.fromkeys(("", label, label.replace(" ", "_")))
    return Row(line, names[0], label, "", [posixpath.join(folder, name) for name in names for folder in folders])
