"""The options of the commands that read lists of videos; they are arguments of ``video_set`` and ``annotated_set``."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace
from typing import Any

from seqclf.errors import SeqclfError

OPTIONS: dict[str, dict[str, Any]] = {
    "--list-form": {"dest": "form", "metavar": "FORM", "help": "how the lists are written (default: detected)"},
    "--columns": {
        "metavar": "USE=NAME,...",
        "help": "names of unusual columns, such as path=clip,label=what; group= ignores groups",
    },
    "--split-column": {"metavar": "NAME", "help": "the column that assigns rows to parts (default: a usual name)"},
    "--test-split": {"metavar": "VALUE", "help": "the value in that column that marks test rows"},
    "--class-index": {"metavar": "FILE", "help": "lists with labels: the numbers and names of the classes"},
    "--first-label": {"type": int, "choices": (0, 1), "help": "the number of the first class (default: detected)"},
    "--multi-label": {"action": "store_true", "help": "a video, or a frame, may have several labels"},
    "--separator": {"metavar": "TEXT", "help": "what separates several labels (default: |)"},
    "--segments": {"metavar": "FILE", "help": "a table of segments (video,start,end,label), or the folder of tables"},
    "--classes": {
        "metavar": "FILE",
        "help": "segments: a file of class names, one per line, or none for those in the table (default: classes.txt "
        "if there is one)",
    },
    "--background": {"metavar": "NAME", "help": "segments: the class of frames outside all of them"},
    "--unit": {"choices": ("frames", "seconds"), "help": "the unit of start and end (default: detected)"},
    "--inclusive": {"action": BooleanOptionalAction, "help": "whether ends of clips or segments are last frames"},
    "--annotation-fps": {"type": float, "metavar": "RATE", "help": "segments: the rate of their frame numbers"},
    "--first-frame": {"type": int, "choices": (0, 1), "help": "segments: the number of the first frame"},
    "--frame-numbers": {"choices": ("names", "order"), "help": "segments: how they number the frames of folders"},
    "--past-end": {"type": float, "help": "how far annotations may extend past the end (default: one frame)"},
    "--pattern": {"help": "which pictures of a folder are frames, such as 'img_*' (default: all)"},
    "--video-stream": {
        "dest": "stream",
        "type": int,
        "metavar": "N",
        "help": "the video stream of files with several, from 0",
    },
    "--layout": {"choices": ("time_first", "features_first"), "help": "the axes of .npy files: (T, D) or (D, T)"},
    "--on-error": {"choices": ("raise", "skip"), "help": "skip videos that are missing or can't be read"},
}


def add_list_options(parser: ArgumentParser, leave_out: tuple[str, ...] = ()) -> None:
    """Adds the options. The parsed arguments have attributes only for options that are given."""
    group = parser.add_argument_group("lists", "as in training")
    for flag, settings in OPTIONS.items():
        if flag not in leave_out:
            group.add_argument(flag, default=SUPPRESS, **settings)


def list_settings(args: Namespace, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The given options as arguments."""
    names = (
        settings.get("dest", flag[2:].replace("-", "_")) for flag, settings in OPTIONS.items() if flag not in leave_out
    )
    found = {name: getattr(args, name) for name in names if hasattr(args, name)}
    if "columns" in found:
        found["columns"] = _columns(found["columns"])
    if found.get("classes") in ("none", "None"):
        found["classes"] = None
    return found


def _columns(text: str) -> dict[str, str | int | None]:
    """The mapping of ``--columns``. Numbers are columns of a file without a header; an empty name ignores a column."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if any(not (purpose and equals) for purpose, equals, _ in pairs):
        raise SeqclfError(f"--columns {text}: expected USE=NAME,..., such as path=clip,label=what")
    return {purpose.strip(): int(name) if name.isdecimal() else name or None for purpose, _, name in pairs}
