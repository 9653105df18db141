"""Text of messages."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number with its noun in singular or plural: "1 class", "2 classes", "3,000 videos"."""
    plural = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{plural}"
