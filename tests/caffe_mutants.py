"""Files of ``caffe_golden`` that are changed at random, and the functions that read them."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import torch
from caffe_golden import files_of, names, write_files
from google.protobuf import text_format
from PIL import Image

from seqclf import caffe
from seqclf.caffe import CaffeFormatError
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.nets.weights import read_weights
from seqclf.caffe.solvers.snapshot import read_state

MEMORY = 64 << 20
"""The machine's memory as reported to the code, so that large valid nets are refused as on a small machine."""


def address_space():
    """The largest address space of the process so far, in MB (0 if the system does not report it)."""
    status = Path("/proc/self/status")
    return int(re.search(r"VmPeak:\s+(\d+)", status.read_text())[1]) // 1024 if status.exists() else 0


# ---- a case: a mutated file, and the files it belongs to


class Subject:
    """A fresh copy of a golden case's folder, and the file in it that is read.

    Attributes:
        what: the case, the file, and what was changed in it.
        refused: the messages of all errors.
    """

    def __init__(self, root, kind, case, file, random):
        self.kind, self.file, self.random = kind, file, random
        self.what, self.refused = f"{case}/{file}", []
        self.folder, self.flavour = root / case, "lisa" if case.startswith("lisa_") else "bvlc"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        write(case, self.folder)

    @classmethod
    def mutant(cls, root, seed):
        """Changes one file at random, as determined by the seed."""
        rng = random.Random(seed)
        kind = rng.choices(list(KINDS), WEIGHTS)[0]
        self = cls(root, kind, *rng.choice(KINDS[kind]), rng)
        path = self.folder / self.file
        change = rng.choice(CHANGES["h5" if self.file.endswith(".h5") else kind])
        self.what += f": {change.__name__}"
        data = path.read_bytes()
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            changed = change(self, data)
            data = data if changed is None else changed
        path.write_bytes(data)
        if rng.random() < 0.05:
            self.flavour = "lisa" if self.flavour == "bvlc" else "bvlc"
        return self

    def run(self):
        torch.manual_seed(self.random.getrandbits(32))
        with torch.random.fork_rng():
            getattr(self, self.kind)()

    def lawful(self, function, *args, **keywords):
        """Returns the function's result, or None if it raised a valid error."""
        try:
            return function(*args, **keywords)
        except CaffeFormatError as error:
            message = str(error)
            there = any(file.name in message for file in self.folder.iterdir())
            assert there or re.search(r"saved\.|_iter_\d", message), f"names no file: {message}"
            assert len(message) < 3000, f"too long: {message}"
            self.refused.append(message)
            return None

    # uses of each kind of file

    def net(self):
        self.lawful(caffe.read_net, self.file, self.flavour)
        phase = self.random.choice(("TRAIN", "TEST"))
        net = self.lawful(caffe.load_net, self.file, phase=phase, flavour=self.flavour)
        if net is not None:
            self.compute(net)
            self.save(net)

    def weights(self):
        if not self.file.endswith(".h5"):
            self.lawful(caffe.read_net, self.file, self.flavour)
            self.lawful(caffe.load_net, self.file, flavour=self.flavour)
        self.lawful(read_weights, self.file, self.flavour)
        prototxt = next(f for f in ("net.prototxt", "net_v1.prototxt", "deploy.prototxt") if Path(f).exists())
        strict = self.random.random() < 0.5
        net = self.lawful(caffe.load_net, prototxt, self.file, flavour=self.flavour, strict=strict)
        if net is not None:
            self.compute(net)

    def state(self):
        self.lawful(read_state, self.file, self.flavour)
        self.train(snapshot=self.file)

    def solver(self):
        self.lawful(caffe.read_solver, self.file, self.flavour)
        if self.random.random() < 0.5:
            with open(self.file, "ab") as file:
                file.write(b" test_iter: 2 test_interval: 1 test_compute_loss: true")
        self.train()

    def mean(self):
        self.lawful(caffe.io.read_mean, self.file, self.flavour)
        Path("mean.prototxt").write_text(
            'layer { name: "pictures" type: "ImageData" top: "data" top: "label" '
            f'image_data_param {{ source: "list.txt" }} transform_param {{ mean_file: "{self.file}" }} }}'
        )
        Path("list.txt").write_text("none.png 0\n")
        assert self.lawful(caffe.load_net, "mean.prototxt") is None

    def rows(self):
        self.train()

    def pictures(self):
        net = self.lawful(caffe.load_net, "net.prototxt", flavour=self.flavour)
        if net is not None:
            self.compute(net)

    def compute(self, net):
        """Runs forward and backward with inputs of the declared shapes."""
        if too_large(net):
            return
        inputs = {}
        for name in net.inputs:
            shape = net.blob_shapes[name]
            kind = self.random.randrange(4)
            inputs[name] = torch.randint(0, 2, shape).float() if kind else torch.randn(shape)
            inputs[name].requires_grad_(kind > 1)
        blobs = self.lawful(net, **inputs)
        if blobs is None:
            return
        if not any(param.type == "Filter" for param in net.message.layer):
            for name, shape in net.blob_shapes.items():
                assert tuple(blobs[name].shape) == tuple(shape), (
                    f"{name} is {tuple(blobs[name].shape)}, declared as {shape}"
                )
        loss = net.loss(blobs)
        if loss.requires_grad:
            loss.backward()

    def save(self, net):
        """Writes what was read, and reads it again unchanged."""
        ending = self.random.choice(("prototxt", "caffemodel", "h5", "", ""))
        if not ending:
            return
        file = f"saved.{ending}"
        if self.lawful(caffe.save_net, net, file) is None or ending == "prototxt":
            return
        found = read_weights(file, self.flavour)
        again = caffe.load_net(self.file, file, phase="TRAIN" if net.training else "TEST", flavour=self.flavour)
        assert found.keys() >= net.params.keys() or ending == "h5"
        for name, blobs in net.params.items():
            for mine, read in zip(blobs, again.params[name], strict=True):
                assert mine.detach().numpy().tobytes() == read.detach().numpy().tobytes()

    def train(self, **keywords):
        """Runs an update, a test and a snapshot, with inputs of the declared shapes."""
        solver = self.lawful(caffe.load_solver, "solver.prototxt", flavour=self.flavour, log=str, **keywords)
        if solver is None or max(solver.param.iter_size, *solver.param.test_iter, 0) > 8:
            return
        if any(too_large(net) for net in (solver.net, *solver.test_nets)):
            return
        solver.feed = {name: torch.zeros(solver.net.blob_shapes[name]) for name in solver.net.inputs}
        if solver.test_nets:
            solver.test_feed = solver.feed
        self.lawful(solver.step, 1)
        self.lawful(solver.test)
        if not os.path.isabs(solver.prefix) and ".." not in solver.prefix:
            self.lawful(solver.snapshot)


def too_large(net):
    """Whether a pass through a valid net takes long."""
    values = sum(math.prod(shape) for shape in net.blob_shapes.values())
    return values > 100_000 or sum(p.numel() for p in net.parameters()) * values > 1e9


OWN = {
    "others": {
        "net.prototxt": b"""
layer { name: "rows" type: "DummyData" top: "x" top: "label" top: "H" dummy_data_param {
  shape { dim: 4 dim: 3 dim: 6 dim: 5 } shape { dim: 4 } shape { dim: 3 dim: 3 }
  data_filler { type: "gaussian" std: 2 } data_filler { value: 1 } data_filler { type: "uniform" min: -1 } } }
layer { name: "pictures" type: "ImageData" top: "pictures" top: "number"
  image_data_param { source: "list.txt" batch_size: 2 new_height: 7 new_width: 6 shuffle: true }
  transform_param { crop_size: 5 mirror: true mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5 } }
layer { name: "columns" type: "Im2col" bottom: "x" top: "columns"
  convolution_param { kernel_size: 3 kernel_size: 2 stride: 2 pad: 1 dilation: 1 } }
layer { name: "pyramid" type: "SPP" bottom: "x" top: "pyramid" spp_param { pyramid_height: 2 pool: MAX } }
layer { name: "stochastic" type: "Pooling" bottom: "x" top: "s"
  pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 } }
layer { name: "again" type: "BatchReindex" bottom: "s" bottom: "label" top: "again" }
layer { name: "some" type: "Filter" bottom: "x" bottom: "label" top: "some" }
layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 4 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "pyramid" top: "ip" param { name: "w" } param { lr_mult: 2 }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "same" type: "InnerProduct" bottom: "pyramid" top: "same" param { name: "w" share_mode: PERMISSIVE }
  inner_product_param { num_output: 3 bias_term: false transpose: true } }
layer { name: "slope" type: "PReLU" bottom: "same" top: "same" prelu_param { channel_shared: true } }
layer { name: "gain" type: "InfogainLoss" bottom: "ip" bottom: "label" bottom: "H" top: "gain" }
layer { name: "far" type: "EuclideanLoss" bottom: "p" bottom: "same" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" top: "probs"
  loss_weight: 1 loss_weight: 0 }
layer { name: "write" type: "HDF5Output" bottom: "x" bottom: "label" hdf5_output_param { file_name: "written.h5" }
  include { phase: TEST } }
layer { name: "quiet" type: "Silence"
  bottom: "pictures" bottom: "number" bottom: "columns" bottom: "again" bottom: "some" }
""",
        "list.txt": b"small.png 0\nsmall.png 1\n",
        "small.png": None,
    }
}


def golden(*endings):
    return [(name, file) for name in names() for file in files_of(name) if file.endswith(endings)]


def write(case, folder):
    if case not in OWN:
        return write_files(case, folder)
    for file, data in OWN[case].items():
        (folder / file).write_bytes(data or b"")
    for picture in folder.glob("*.png"):
        Image.new("RGB", (9, 8), (200, 100, 50)).save(picture)


NETS = ("net.prototxt", "net_v1.prototxt", "deploy.prototxt", "train_val.prototxt", "train_val_drop.prototxt")
KINDS = {
    "net": golden(*NETS) + [("others", "net.prototxt")] * 20,
    "weights": golden(".caffemodel", ".caffemodel.h5"),
    "state": golden(".solverstate", ".solverstate.h5"),
    "solver": golden("solver.prototxt"),
    "mean": golden(".binaryproto"),
    "rows": golden("train.h5", "train_list.txt"),
    "pictures": [("others", "list.txt"), ("others", "small.png")],
}
WEIGHTS = (6, 4, 2, 3, 1, 1, 1)


# ---- changes of bytes


def cut_short(m, data):
    return data[: m.random.choice((0, 1, len(data) - 1, m.random.randrange(len(data) + 1)))]


def flip_bits(m, data):
    data = bytearray(data)
    for _ in range(m.random.choice((1, 1, 2, 8))):
        if data:
            data[m.random.randrange(len(data))] ^= 1 << m.random.randrange(8)
    return bytes(data)


def splice(m, data):
    """Removes, inserts or overwrites some bytes."""
    at = m.random.randrange(len(data) + 1)
    size = m.random.choice((1, 1, 2, 4, 8, 100, 2000))
    new = m.random.choice(
        (b"", bytes(size), b"\xff" * size, m.random.randbytes(size), data[m.random.randrange(len(data) + 1) :][:size])
    )
    return data[:at] + new + data[at + m.random.choice((0, len(new), size)) :]


# ---- changes of a binary message, whose fields are found without its schema


HUGE = (2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
STRINGS = (b"", b"\xff\xfe", b"a\0b", b"x" * 5000, b"..", b"/", b"caf\xc3", b"\n", "é".encode(), b"data", b"label")


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes((value,))


def fields_of(data):
    """Splits a message into fields (tag, value, payload): the bytes of a number, or of a field with a length."""
    found, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    try:
        while at < len(data):
            tag = number()
            start = at
            if tag & 7 == 0:
                number()
                found.append((tag, data[start:at], None))
            elif tag & 7 == 2:
                size = number()
                if at + size > len(data):
                    return []
                found.append((tag, None, data[at : at + size]))
                at += size
            elif tag & 7 in (1, 5):
                at += 8 if tag & 7 == 1 else 4
                found.append((tag, data[start:at], None))
            else:
                return []
    except IndexError:
        return []
    return found


def change_fields(m, data, depth=0):
    """Changes a field of a message or of a nested one; usually corrects the lengths around it."""
    fields = fields_of(data)
    if not fields:
        return m.random.choice(STRINGS)
    pieces = [
        varint(tag) + (value if payload is None else varint(len(payload)) + payload) for tag, value, payload in fields
    ]
    i = m.random.randrange(len(fields))
    tag, _, payload = fields[i]
    if payload and depth < 4 and m.random.random() < 0.7:
        payload = change_fields(m, payload, depth + 1)
        pieces[i] = varint(tag) + varint(len(payload)) + payload
        return b"".join(pieces)
    j = m.random.randrange(len(fields))
    do = m.random.randrange(10)
    if do == 0:
        del pieces[i]
    elif do == 1:
        pieces.insert(j, pieces[i])
    elif do == 2:
        pieces[i], pieces[j] = pieces[j], pieces[i]
    elif do == 3:
        pieces[i] = varint(tag & ~7 | m.random.randrange(8)) + pieces[i][len(varint(tag)) :]
    elif do == 4:
        number = m.random.choice((m.random.randrange(150), 0, 2**26, 2**30, 2**57))
        pieces[i] = varint(number << 3 | tag & 7) + pieces[i][len(varint(tag)) :]
    elif do == 5:  # a tag of more bytes than it needs
        longer = varint(tag)[:-1] + bytes((varint(tag)[-1] | 128,)) + b"\x80" * m.random.randrange(4) + b"\0"
        pieces[i] = longer + pieces[i][len(varint(tag)) :]
    elif payload is None:
        pieces[i] = varint(tag & ~7) + varint(m.random.choice((0, 1, 2, *HUGE)))
    elif do == 6:
        size = m.random.choice((0, 1, len(payload) + 1, max(0, len(payload) - 1), *HUGE))
        pieces[i] = varint(tag) + varint(size) + payload
    elif do == 7:
        pieces[i] = varint(tag) + varint(0)
    else:
        new = m.random.choice((*STRINGS, payload * 2, payload[:-1], payload[:-4], varint(m.random.choice(HUGE))))
        pieces[i] = varint(tag) + varint(len(new)) + new
    return b"".join(pieces)


# ---- changes of a message by its schema


INTS = (*range(-3, 6), 7, 16, 100, 1000, 65536, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63))
FLOATS = (0.0, 1.0, -1.0, 0.5, 2.0, 1e-40, 1e30, 3e38, math.inf, -math.inf, math.nan, -0.0)


def messages_of(message):
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from messages_of(inner)


def strings_of(message):
    for inner in messages_of(message):
        for field, value in inner.ListFields():
            if field.cpp_type == field.CPPTYPE_STRING and field.type == field.TYPE_STRING:
                yield from value if field.is_repeated else (value,)


def change_message(m, message):
    """Sets, clears, doubles, swaps or empties one field of the message or of a nested one."""
    inner = m.random.choice(list(messages_of(message)))
    if m.random.random() < 0.3 and inner is not message and message.DESCRIPTOR.name == "NetParameter":
        inner = m.random.choice([one for one in messages_of(message) if one.DESCRIPTOR.name.endswith("Parameter")])
    there = [field for field, _ in inner.ListFields()]
    every = [field for field in inner.DESCRIPTOR.fields if field.name not in ("blobs", "history", "layers", "diff")]
    field = m.random.choice(there if there and m.random.random() < 0.7 else every)

    def value():
        if field.enum_type is not None:
            return m.random.choice(field.enum_type.values).number
        if field.type == field.TYPE_STRING:
            return m.random.choice(
                [*strings_of(message), "", "a\0b", "x" * 5000, "none", "é", "a/b", "a.b", "\n", "net.prototxt"]
            )
        if field.type == field.TYPE_BYTES:
            return b""
        if field.cpp_type == field.CPPTYPE_BOOL:
            return bool(m.random.randrange(2))
        if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
            return m.random.choice(FLOATS)
        bits = 64 if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 32
        signed = field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_INT32)
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return m.random.choice([n for n in INTS if low <= n <= high])

    old = getattr(inner, field.name)
    if not field.is_repeated:
        if field.message_type is not None:
            if m.random.random() < 0.5:
                inner.ClearField(field.name)
            else:
                old.SetInParent()
                change_message(m, old)
        elif m.random.random() < 0.15:
            inner.ClearField(field.name)
        else:
            setattr(inner, field.name, value())
        return
    entries = list(old)
    if field.message_type is not None:
        entries = [type(entry).FromString(entry.SerializePartialToString()) for entry in entries]
    do = m.random.randrange(6)
    if do == 0 and entries:
        del entries[m.random.randrange(len(entries))]
    elif do == 1 and entries:
        entries.insert(m.random.randrange(len(entries) + 1), m.random.choice(entries))
    elif do == 2 and entries:
        i, j = m.random.randrange(len(entries)), m.random.randrange(len(entries))
        entries[i], entries[j] = entries[j], entries[i]
    elif field.message_type is not None:
        entries.append(old.add())
        change_message(m, entries[-1])
    elif entries and do < 5:
        entries[m.random.randrange(len(entries))] = value()
    else:
        entries.insert(m.random.randrange(len(entries) + 1), value())
    if field.message_type is not None:
        entries = [type(entry).FromString(entry.SerializePartialToString()) for entry in entries]
    inner.ClearField(field.name)
    getattr(inner, field.name).extend(entries)


MESSAGES = {
    "net": "NetParameter",
    "weights": "NetParameter",
    "state": "SolverState",
    "solver": "SolverParameter",
    "mean": "BlobProto",
}


def change_values(m, data):
    """Changes a message by its schema; text stays text."""
    if m.file.endswith(".h5"):
        return None
    message = getattr(schema(m.flavour), MESSAGES[m.kind])()
    text = m.file.endswith(".prototxt")
    try:
        text_format.Parse(data.decode(), message) if text else message.ParseFromString(data)
    except Exception:
        return None
    change_message(m, message)
    return text_format.MessageToString(message).encode() if text else message.SerializePartialToString()


# ---- changes of text


TOKENS = (
    *"{}:\"'#<>[],;-0",
    *[
        "inf",
        "nan",
        "-1",
        "1.5",
        "1e400",
        "-1e400",
        "0x7fffffff",
        "2147483648",
        "4294967295",
        "9223372036854775807",
        "18446744073709551616",
    ],
    *("true", "MAX", "ALL", '"x', '"\\377"', '"\\000"', "\0", "\xff", "layer", "layers {", "layer {}", "input: 'x'"),
    *("top: 'data'", "bottom: 'y'", "type: 'Split'", "param {}", "lr_mult: 2", "loss_weight: 1", "blobs {"),
    *("propagate_down: false", "include { phase: TRAIN }", "exclude {}", "shape { dim: 1000000 dim: 1000000 }"),
    "[type.googleapis.com/caffe.NetParameter] {",
)


def change_tokens(m, data):
    tokens = re.findall(r'"[^"\n]*"|[\w.+-]+|[^\w\s]|\s+', data.decode("utf-8", "replace")) or [""]
    words = [i for i, token in enumerate(tokens) if token.strip()] or [0]
    i, j = m.random.choice(words), m.random.choice(words)
    numbers = [i for i in words if re.fullmatch(r"[-+]?[\d.]+(e-?\d+)?", tokens[i])]
    do = m.random.randrange(7)
    if do == 0:
        del tokens[i]
    elif do == 1:
        tokens.insert(j, f" {tokens[i]} ")
    elif do == 2:
        tokens[i], tokens[j] = tokens[j], tokens[i]
    elif do == 3:
        tokens[i] = f" {m.random.choice(TOKENS)} "
    elif do == 4:
        tokens.insert(i, f" {m.random.choice(TOKENS)} " * m.random.choice((1, 1, 2, 5000)))
    elif numbers:
        tokens[m.random.choice(numbers)] = str(
            m.random.choice((*INTS, "1e400", "nan", "inf", "0.5", "-0", "1e-50", "07", "0x1F"))
        )
    return "".join(tokens).encode("utf-8")


def change_lines(m, data):
    """Doubles, moves or removes blocks in braces."""
    lines = data.decode("utf-8", "replace").splitlines(keepends=True) or [""]
    i = m.random.randrange(len(lines))
    depth, j = 0, i
    while j < len(lines):
        depth += lines[j].count("{") - lines[j].count("}")
        j += 1
        if depth <= 0:
            break
    block = lines[i:j]
    do = m.random.randrange(4)
    if do != 0:
        del lines[i:j]
    if do != 1:
        at = m.random.randrange(len(lines) + 1)
        lines[at:at] = block
    return "".join(lines).encode()


# ---- changes of an HDF5 file


def change_datasets(m, data):
    path = m.folder / m.file
    path.write_bytes(data)
    try:
        with h5py.File(path, "r+") as file:
            change_one_dataset(m.random, file)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError):  # a change that this file does not allow
        return None
    return path.read_bytes()


def change_one_dataset(random, file):
    found = []
    file.visititems(lambda name, item: found.append(name))
    if not found:
        return
    name = random.choice(found)
    item = file[name]
    shape = item.shape if isinstance(item, h5py.Dataset) else ()
    do = random.randrange(10)
    if do == 0:
        new = ("data/x", "data/ip1/2", "data/ip1/-1", "data/ip1/0/1", "history/1x", "history/99", name + "é", "x")
        file.move(name, random.choice(new))
        return
    if do == 1:
        file[name + "x"] = random.choice((item, h5py.SoftLink("/")))
        return
    if do == 2:
        where = "history/extra" if "history" in file else "data/extra/0"
        file.create_dataset(where, data=np.zeros(3, "f4"))
        return
    values = item[()] if isinstance(item, h5py.Dataset) and (item.size or 0) < 10**6 else np.zeros(2)
    del file[name]
    if do == 3:
        links = (
            h5py.SoftLink("/" + name),
            h5py.ExternalLink("none.h5", "/"),
            h5py.ExternalLink(file.filename, "/" + name),
        )
        file[name] = random.choice(links)
    elif do == 4:
        file.create_group(name)
    elif do in (5, 6):
        shape = random.choice(((10**6, 10**6), (2**30,), (2**33,), (0, 2**40), (0,), (3, 4)))
        options = ({}, {"chunks": (1000,) * len(shape)}, {"chunks": True, "compression": "gzip"}, {"fillvalue": 1.0})
        file.create_dataset(name, shape, "f4", **random.choice(options))
    elif do == 7:
        kinds = ("f8", "i4", "u8", ">f4", "f2", "S5", "bool", "c8", h5py.string_dtype(), [("a", "f4")])
        file.create_dataset(name, shape, random.choice(kinds))
    elif do == 8:
        flat = np.ravel(values)
        file[name] = random.choice((flat, np.stack([values, values]), flat[:0], h5py.Empty("f4"), -5, 2**40, np.nan))


BYTES = (cut_short, flip_bits, splice)
TEXT = (change_tokens, change_tokens, change_lines, change_lines, change_values, change_values, change_values, *BYTES)
CHANGES = {
    "net": TEXT,
    "solver": TEXT,
    "weights": (change_fields, change_fields, change_values, change_values, *BYTES),
    "state": (change_fields, change_fields, change_values, change_values, *BYTES),
    "mean": (change_fields, change_values, *BYTES),
    "rows": BYTES,
    "pictures": BYTES,
    "h5": (change_datasets, change_datasets, change_datasets, *BYTES),
}
