"""Parsing of protobuf's text form. Every unknown field and value in a file is reported at once."""

from __future__ import annotations

import codecs
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

_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass
class _Layer:
    """The strings in which a layer's name and type are written, filled while the layer is read."""

    name: str = ""
    type: str = ""


@dataclass
class Unknown:
    """A field that the message type does not have, or a value that an enum does not have.

    Attributes:
        line: its line, counted from 1.
        field: the field's name, after the names of the fields around it within its layer: ``"pooling_param.side"``.
        value: the value, if the field exists.
        expected: the values of the enum, if they are few.
        layer: the layer that contains it, or None.
    """

    line: int
    field: str
    value: str = ""
    expected: tuple[str, ...] = ()
    layer: _Layer | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: "
        if self.layer is not None:
            where += f'layer "{self.layer.name}" ({self.layer.type or "no type"}): '
        if not self.value:
            return f"{where}unknown field {self.field}"
        return f"{where}field {self.field}: unknown value {self.value}" + (
            f", expected {' or '.join(self.expected)}" if self.expected else ""
        )


def decode(data: Any, name: str) -> str:
    """Decodes the bytes of a text file, without a byte order mark.

    Bytes that are not UTF-8 become lone surrogates, because comments may be in any encoding.

    Raises:
        CaffeFormatError: the text is in UTF-16.
    """
    text = bytes(data)
    if text[:2] in _BOMS or b"\0" in text[:2]:
        raise CaffeFormatError(f"{name}: is UTF-16 text, expected UTF-8: save the file as UTF-8")
    return text.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


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
        raise CaffeFormatError(name, list(map(str, unknown)))
    return message


def parse_known_fields(text: str, message: M, name: str) -> tuple[M, list[Unknown]]:
    """Like ``parse_text``, but skips the fields that the message type does not have, and returns them."""
    unknown: list[Unknown] = []
    try:
        try:
            text_format.Parse(text, cast(Any, message))
        except text_format.ParseError:
            unknown = list(_find_unknown(text, message))
            if not unknown:
                raise
            if any(one.value for one in unknown):  # protobuf cannot skip the values of enums
                raise CaffeFormatError(name, list(map(str, unknown))) from None
            cast(Any, message).Clear()
            text_format.Parse(text, cast(Any, message), allow_unknown_field=True)
        missing = cast(Any, message).FindInitializationErrors()
    except CaffeFormatError:
        raise
    except text_format.ParseError as error:
        line = f", line {error.GetLine()}" if error.GetLine() else ""
        what = str(error).split(" : ", 1)[-1].replace("\n", " ")
        if "surrogates not allowed" in what:
            what = "a string that is not UTF-8 (only comments may be in another encoding)"
        raise CaffeFormatError(f"{name}{line}: {what}") from None
    except Exception as error:  # a malformed text can make the parser raise anything
        if unknown:
            raise CaffeFormatError(name, list(map(str, unknown))) from None
        kind = cast(Any, message).DESCRIPTOR.name
        raise CaffeFormatError(f"{name}: not a {kind} ({type(error).__name__}: {error})") from None
    if missing:
        raise CaffeFormatError(f"{name}: required field {missing[0]} is missing")
    return message, unknown


def _find_unknown(text: str, message: Any) -> Iterator[Unknown]:
    """Walks the text with the message's descriptors. The contents of unknown fields are skipped."""
    tokens = [*_tokens(text), ("", "", 0)]
    blocks: list[tuple[str, Any]] = [("", message.DESCRIPTOR)]
    layer: _Layer | None = None
    depth = 0  # of the blocks around the fields of ``layer``
    at = 0
    while tokens[at][0]:
        kind, word, line = tokens[at]
        at += 1
        if word in ("}", ">") and len(blocks) > 1:
            blocks.pop()
            if len(blocks) < depth:
                layer, depth = None, 0
        if kind != "name":
            continue
        descriptor = blocks[-1][1]
        field = descriptor.fields_by_name.get(word) if descriptor is not None else None
        around = [name for name, _ in blocks[depth or 1 : (depth or 1) + 9]]  # a hostile file may nest deeply
        path = ".".join([*around, word])
        if descriptor is not None and descriptor.name == "NetParameter" and word in ("layer", "layers"):
            layer, depth = _Layer(), len(blocks) + 1
        if descriptor is not None and field is None:
            yield Unknown(line, path, layer=layer)
        at += tokens[at][1] == ":"
        kind, value, line = tokens[at]
        if value in ("{", "<"):
            blocks.append((word, field.message_type if field is not None else None))
            at += 1
        elif value == "[":
            while tokens[at][0] and tokens[at][1] != "]":
                at += 1
        elif kind == "string":
            while tokens[at][0] == "string":  # adjacent strings are one
                at += 1
        elif kind in ("name", "other"):
            at += 1
        if layer is not None and path in ("name", "type", "layer.name", "layer.type"):  # "layer." in V0 nets
            setattr(layer, word, value.strip("\"'"))
        if kind == "name" and field is not None and field.enum_type is not None:
            expected = tuple(field.enum_type.values_by_name)
            if value not in expected:
                yield Unknown(line, path, value, expected if len(expected) <= 8 else (), layer)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yields the kind, text and line of each token."""
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            yield match.lastgroup or "", match.group(), line
        line += match.group().count("\n")
