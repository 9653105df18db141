"""Text of messages."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number with its noun in singular or plural: "1 class", "2 classes", "3,000 videos"."""
    plural = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{plural}"


def class_range(classes: int) -> str:
    """Which class indices there are: "there is 1 class, 0", "there are 3 classes, 0 to 2"."""
    return "there is 1 class, 0" if classes == 1 else f"there are {classes} classes, 0 to {classes - 1}"
