"""Messages from protobuf's text form, with every unknown field of a file reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from google.protobuf import text_format

from seqclf.caffe.error import CaffeFormatError

M = TypeVar("M")

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)"""
    r"""|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<name>[A-Za-z_][\w.]*)"""
    r"""|(?P<mark>[{}<>:\[\],;])"""
    r"""|(?P<other>[^\s{}<>:\[\],;#"']+|["'])"""
)


@dataclass(frozen=True)
class UnknownField:
    """A field that the message type does not have.

    Attributes:
        line: its line, counted from 1.
        path: its name, after the names of the fields around it within its layer: ``"pooling_param.side"``.
        layer: the field that holds its layer, ``"layer"`` or ``"layers"``, and the layer's index there; or None.
    """

    line: int
    path: str
    layer: tuple[str, int] | None


def decode(data: Any) -> str:
    """Text from bytes. Bytes that are not UTF-8 become lone surrogates, as comments may be in any encoding."""
    return bytes(data).decode("utf-8", "surrogateescape")


def parse_text(text: str, message: M, name: str) -> M:
    """Parses a message from protobuf's text form.

    Args:
        text: the text.
        message: an empty message, which is filled and returned.
        name: the file, for errors.

    Raises:
        CaffeFormatError: the text is not such a message; each problem names its line.
    """
    message, unknown = parse_known_fields(text, message, name)
    if unknown:
        raise CaffeFormatError(name, _listed(unknown, message))
    return message


def parse_known_fields(text: str, message: M, name: str) -> tuple[M, list[UnknownField]]:
    """Like ``parse_text``, but skips the fields that the message type does not have, and returns them."""
    unknown: list[UnknownField] = []
    try:
        try:
            text_format.Parse(text, cast(Any, message))
        except text_format.ParseError:
            unknown = list(_unknown_fields(text, message))
            if not unknown:
                raise
            cast(Any, message).Clear()
            text_format.Parse(text, cast(Any, message), allow_unknown_field=True)
        missing = cast(Any, message).FindInitializationErrors()
    except text_format.ParseError as error:
        line = f", line {error.GetLine()}" if error.GetLine() else ""
        what = str(error).split(" : ", 1)[-1].replace("\n", " ")
        if "surrogates not allowed" in what:
            what = "a string that is not UTF-8 (only comments may be in another encoding)"
        raise CaffeFormatError(f"{name}{line}: {what}") from None
    except Exception as error:  # a malformed text can make the parser raise anything
        if unknown:
            raise CaffeFormatError(name, _listed(unknown, message)) from None
        raise CaffeFormatError(f"{name}: not a {_kind(message)} ({type(error).__name__}: {error})") from None
    if missing:
        raise CaffeFormatError(f"{name}: required field {missing[0]} is missing")
    return message, unknown


def _unknown_fields(text: str, message: Any) -> Iterator[UnknownField]:
    """Walks the text with the message's descriptors; what is inside an unknown field is skipped."""
    tokens = [*_tokens(text), ("", "", 0)]
    blocks: list[tuple[str, Any]] = [("", message.DESCRIPTOR)]
    layers: dict[str, int] = {}
    layer: tuple[str, int] | None = None
    at = 0
    while tokens[at][0]:
        kind, word, line = tokens[at]
        at += 1
        if word in ("}", ">") and len(blocks) > 1:
            blocks.pop()
            layer = layer if len(blocks) > 1 else None
        if kind != "name":
            continue
        descriptor = blocks[-1][1]
        field = descriptor.fields_by_name.get(word) if descriptor is not None else None
        if len(blocks) == 1 and word in ("layer", "layers"):
            layer = (word, layers.setdefault(word, 0))
            layers[word] += 1
        if descriptor is not None and field is None:
            yield UnknownField(line, ".".join([*(name for name, _ in blocks[2:]), word]), layer)
        at += tokens[at][1] == ":"
        if tokens[at][1] in ("{", "<"):
            blocks.append((word, field.message_type if field is not None else None))
            at += 1
        elif tokens[at][1] == "[":
            while tokens[at][0] and tokens[at][1] != "]":
                at += 1
        elif tokens[at][0] == "string":
            while tokens[at][0] == "string":  # adjacent strings are one
                at += 1
        elif tokens[at][0] in ("name", "other"):
            at += 1


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Kind, text and line of each token."""
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            yield match.lastgroup or "", match.group(), line
        line += match.group().count("\n")


def _listed(unknown: list[UnknownField], message: Any) -> list[str]:
    return [f"line {field.line}: {_kind(message)} has no field {field.path}" for field in unknown]


def _kind(message: Any) -> str:
    return message.DESCRIPTOR.name
