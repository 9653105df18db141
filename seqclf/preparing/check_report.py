"""The result of a check as text, as plain values and as an HTML page."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from html import escape
from pathlib import PurePath
from typing import Any

from seqclf.preparing.check_result import Clip, File, VideoCheck, size_text
from seqclf.reporting.page import html_page, html_table
from seqclf.runtime.text import counted

PICTURES = 600
"""About the largest number of thumbnails on a page."""
PER_CLASS = 12
"""The largest number of thumbnails of a class."""
SHOWN = 20
"""The largest number of problems, and of classes, on the terminal."""
STYLE = """<style>
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem }
.grid figure { margin: 0; min-width: 0 }
.grid img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #000 }
.grid figcaption { overflow: hidden; font-size: .8rem; text-overflow: ellipsis; white-space: nowrap }
.good { color: #1a7f37; font-weight: 700 }
li { overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { .good { color: #57d17a } }
</style>"""


def plain_values(check: VideoCheck) -> dict[str, Any]:
    """The content of ``check.json``."""
    return {
        "lists": check.lists,
        "problems": check.problems,
        "warnings": check.warnings,
        "classes": check.classes,
        "parts": {part: _facts(check, part) for part in check.parts},
        "files": [
            {
                "path": file.path,
                "frames": file.frames,
                "shape": list(file.shape),
                "seconds": file.seconds,
                "fps": file.fps,
                "error": file.error or None,
            }
            for file in check.files.values()
        ],
        "clips": [
            {"part": c.part, "name": c.name, "span": c.span, "classes": c.classes, "group": c.group, "frames": c.frames}
            for c in check.clips
        ],
    }


def text(check: VideoCheck) -> str:
    """The summary for the terminal: lists, parts, classes, warnings and problems."""
    parts = check.parts
    facts = [_facts(check, part) for part in parts]
    rows = [["", *parts], *([name, *(_shown(one[name]) for one in facts)] for name in _NAMES)]
    classes = [["videos of class", *parts]]
    counts = [check.class_counts(part) for part in parts]
    classes += [[name, *(f"{count[name]:,}" for count in counts)] for name in check.classes[:SHOWN]]
    if len(check.classes) > SHOWN:
        classes.append([f"... {len(check.classes) - SHOWN:,} more", *("" for _ in parts)])
    lines = [*check.lists, "", *_columns(rows), "", *_columns(classes), ""]
    for kind, found in (("warning", check.warnings), ("problem", check.problems)):
        lines += [f"{kind}: {one}" for one in found[:SHOWN]]
        lines += [f"{kind}: ... {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []
    return "\n".join([*lines, verdict(check)])


def verdict(check: VideoCheck) -> str:
    """One line about the result."""
    if check.problems:
        return f"{counted(len(check.problems), 'problem')} that would stop training"
    return "all videos can be read, and all annotations fit them"


def page(check: VideoCheck, title: str) -> str:
    """A page with tables and thumbnails, which needs no other file."""
    state = "warning" if check.problems else "good"
    body = [STYLE, f'<p class="{state}">{escape(verdict(check))}</p>']
    for name, found in (("Problems", check.problems), ("Warnings", check.warnings)):
        if found:
            items = "".join(f"<li>{escape(one)}</li>" for one in found)
            body.append(f'<h2>{name}</h2>\n<div class="scroll"><ul>{items}</ul></div>')
    parts = check.parts
    facts = [_facts(check, part) for part in parts]
    body.append("<h2>Parts</h2>")
    body.append(html_table(["", *parts], [[name, *(_shown(one[name]) for one in facts)] for name in _NAMES]))
    body.append('<h2>Classes</h2>\n<p>Videos of each class, and their share of the part.</p>\n<div class="scroll">')
    head = ["class", *(column for part in parts for column in (part, f"share of {part}"))]
    counts = [(check.class_counts(part), max(1, len(check.clips_of(part)))) for part in parts]
    shares = [[name, *(x for n, clips in counts for x in (n[name], n[name] / clips))] for name in check.classes]
    body.append(html_table(head, shares) + "</div>")
    body.append(_pictures(check))
    body.append('<h2>Files</h2>\n<div class="scroll">')
    names = ["file", "frames", "size", "seconds", "frames per second", "error"]
    body.append(html_table(names, map(_file_row, check.files.values())) + "</div>")
    body.append("<h2>Lists</h2>\n" + "".join(f"<p>{escape(one)}</p>" for one in check.lists))
    return html_page(title, "\n".join(body), wide=False)


_NAMES = ("videos", "clips", "groups", "frames", "seconds", "shortest", "longest", "sizes", "frame rates", "unreadable")


def _facts(check: VideoCheck, part: str) -> dict[str, Any]:
    """Facts about a part: counts, total seconds, and the shortest and longest video in frames."""
    files, clips = check.files_of(part), check.clips_of(part)
    good = [file for file in files if not file.error]
    seconds = [file.seconds for file in good if file.seconds is not None]
    sizes = Counter(size_text(file.shape) for file in good)
    rates = Counter(f"{file.fps:.4g}" for file in good if file.fps is not None)
    return {
        "videos": len(files),
        "clips": len(clips),
        "groups": len({clip.group for clip in clips} - {None}),
        "frames": sum(file.frames for file in good),
        "seconds": round(sum(seconds), 2) if seconds else None,
        "shortest": min((file.frames for file in good), default=None),
        "longest": max((file.frames for file in good), default=None),
        "sizes": dict(sizes.most_common()),
        "frame rates": dict(rates.most_common()),
        "unreadable": len(files) - len(good),
    }


def _shown(value: Any) -> str:
    """A value as text; of several values, the most frequent ones."""
    if isinstance(value, dict) and value:
        more = f" and {len(value) - 3:,} more" if len(value) > 3 else ""
        return (
            ", ".join(f"{name} ({count:,})" if len(value) > 1 else name for name, count in [*value.items()][:3]) + more
        )
    return f"{value:,}" if isinstance(value, int | float) else "–"


def _columns(rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = (
        [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))] for row in rows
    )
    return ["  ".join(line).rstrip() for line in lines]


def _file_row(file: File) -> list[str | int | float | None]:
    size = size_text(file.shape) if file.shape else None
    seconds = None if file.seconds is None else f"{file.seconds:.2f}"
    return [file.path, file.frames, size, seconds, None if file.fps is None else f"{file.fps:.4g}", file.error or None]


def _pictures(check: VideoCheck) -> str:
    """The middle frames of some videos of each class."""
    most = max(1, min(PER_CLASS, PICTURES // max(1, len(check.classes))))
    body, of_class = [], defaultdict(list)
    for clip in check.clips:
        for name in clip.classes if check.files[clip.path].picture else ():
            of_class[name].append(clip)
    for name in check.classes:
        if clips := of_class[name]:
            chosen = clips[:: -(-len(clips) // most)]
            count = f"{len(chosen):,} of " * (len(chosen) < len(clips)) + counted(len(clips), "clip")
            figures = "\n".join(_picture(clip, check.files[clip.path]) for clip in chosen)
            body.append(f'<h2>{escape(name)}</h2>\n<p>{count}</p>\n<div class="grid">\n{figures}\n</div>')
    return "\n".join(body)


def _picture(clip: Clip, file: File) -> str:
    source = base64.b64encode(file.picture).decode()
    name = escape(f"{clip.name} ({clip.part})", quote=True)
    return (
        f'<figure title="{name}"><img alt="" loading="lazy" src="data:image/jpeg;base64,{source}">'
        f"<figcaption>{escape(PurePath(clip.name).name)}</figcaption></figure>"
    )
