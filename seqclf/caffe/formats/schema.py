"""Caffe's protobuf messages, built from ``caffe.proto`` beside this file, for both forks."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from seqclf.caffe.error import CaffeFormatError

Flavour = Literal["bvlc", "lisa"]
FLAVOURS = ("bvlc", "lisa")

LISA: dict[str, dict[str, tuple[str, int] | int | None]] = {
    # fields that lisa-caffe's lstm_video_deploy numbers differently (a number), adds (type, number) or lacks (None)
    "LayerParameter": {"embed_param": 132, "recurrent_param": 134, "spp_param": None, "log_param": None},
    "TransformationParameter": {"force_color": None, "flow": ("bool", 6)},
    "AccuracyParameter": {"denominator": ("float", 4)},
    "EltwiseParameter": {"coeff_blob": ("bool", 4)},
    "ImageDataParameter": {"min_height": ("uint32", 13), "min_width": ("uint32", 14)},
}

_Field = descriptor_pb2.FieldDescriptorProto
_LABELS = {"optional": _Field.LABEL_OPTIONAL, "repeated": _Field.LABEL_REPEATED, "required": _Field.LABEL_REQUIRED}
_SCALARS = {
    name: getattr(_Field, f"TYPE_{name.upper()}") for name in ["bool", "bytes", "double", "float", "string"]
} | {name: getattr(_Field, f"TYPE_{name.upper()}") for name in ["int32", "int64", "uint32", "uint64"]}
_TOKEN = re.compile(
    r"//[^\n]*|(?P<open>(?:message|enum) \w+ \{)|(?P<close>\})"
    r"|(?P<field>(?:optional|repeated|required) \w+ \w+ = \d+(?: \[[^\]]*\])?;)|(?P<value>\w+ = \d+;)"
    r'|syntax = "proto2";|package caffe;|\s+'
)


class Schema:
    """The message classes of one fork: ``schema("bvlc").NetParameter()``."""

    NetParameter: Any
    NetState: Any
    LayerParameter: Any
    FillerParameter: Any
    SolverParameter: Any
    SolverState: Any
    BlobProto: Any
    Datum: Any

    def __init__(self, flavour: Flavour) -> None:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(_file_descriptor(flavour))  # type: ignore[no-untyped-call]
        for name, message in message_factory.GetMessageClassesForFiles(["caffe.proto"], pool).items():
            setattr(self, name.removeprefix("caffe."), message)


def schema(flavour: str = "bvlc") -> Schema:
    """The messages of BVLC Caffe ("bvlc") or of lisa-caffe ("lisa").

    Raises:
        CaffeFormatError: there is no such flavour.
    """
    if flavour not in FLAVOURS:
        raise CaffeFormatError(f'flavour={flavour!r}: expected "bvlc" or "lisa"')
    return _schema(flavour)  # type: ignore[arg-type]


@lru_cache
def _schema(flavour: Flavour) -> Schema:
    return Schema(flavour)


def _file_descriptor(flavour: Flavour) -> descriptor_pb2.FileDescriptorProto:
    """Parses ``caffe.proto``, which uses only a part of proto2's grammar."""
    text = (files("seqclf.caffe.formats") / "caffe.proto").read_text(encoding="utf-8")
    proto = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    enums = set(re.findall(r"enum (\w+) \{", text))
    stack: list[Any] = [proto]
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise AssertionError(f"caffe.proto, line {text.count(chr(10), 0, at) + 1}: not understood")
        at = token.end()
        words = token.group().rstrip(";{ ").split(None, 4)
        if token["open"]:
            kind, name = words
            if kind == "message":
                stack.append(proto.message_type.add(name=name))
            else:
                stack.append(stack[-1].enum_type.add(name=name))
        elif token["close"]:
            done = stack.pop()
            for name, change in LISA.get(done.name, {}).items() if flavour == "lisa" else ():
                _change(done, name, change)
        elif token["value"]:
            stack[-1].value.add(name=words[0], number=int(words[2]))
        elif token["field"]:
            label, kind, name, _, rest = words
            number, _, options = rest.partition(" ")
            field = stack[-1].field.add(name=name, number=int(number), label=_LABELS[label])
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type = _Field.TYPE_ENUM if kind in enums else _Field.TYPE_MESSAGE
                inside = any(enum.name == kind for enum in getattr(stack[-1], "enum_type", ()))
                field.type_name = f".caffe.{stack[-1].name}.{kind}" if inside else f".caffe.{kind}"
            if "packed" in options:
                field.options.packed = True
            if "default" in options:
                field.default_value = options.split("= ", 1)[1].rstrip("]").strip('"')
    return proto


def _change(message: Any, name: str, change: tuple[str, int] | int | None) -> None:
    at = next((i for i, field in enumerate(message.field) if field.name == name), None)
    if change is None:
        del message.field[at]
    elif isinstance(change, int):
        message.field[at].number = change
    else:
        message.field.add(name=name, number=change[1], label=_LABELS["optional"], type=_SCALARS[change[0]])
