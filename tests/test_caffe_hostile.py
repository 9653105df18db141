"""Damaged and hostile files work or raise a ``CaffeFormatError``, in bounded time and memory.

Each case changes a file of ``caffe_golden`` at random, by its own seed: it truncates the file, flips bits, replaces
lengths, shapes, names and tokens, or doubles, swaps and removes layers and blobs. Every public function reads the file,
and the nets are run. The law: this works, or raises a ``CaffeFormatError`` that names the file. There is no other
exception, no warning, no hang, and no memory beyond the size of the file.

500 cases run each time, and 20,000 with ``SEQCLF_LONG=1``. ``SEQCLF_CASE=<number>`` runs one case.
"""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from caffe_golden import files_of, names, write_files
from google.protobuf import text_format
from PIL import Image

from seqclf import caffe
from seqclf.caffe import CaffeFormatError
from seqclf.caffe.schema import schema
from seqclf.caffe.snapshot import read_state
from seqclf.caffe.weights import read_weights

LONG = bool(os.environ.get("SEQCLF_LONG"))
CASES, CHUNK = (20_000, 250) if LONG else (500, 50)
SECONDS, MEGABYTES = 2, 500
"""Limits of a case: processor time, and growth of the largest address space."""
MEMORY = 64 << 20
"""The machine's memory as reported to the code, so that large valid nets are refused as on a small machine."""


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": MEMORY}.__getitem__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the cases. Some were run there before, because PyTorch and h5py load libraries on first use."""
    root, here = tmp_path_factory.mktemp("hostile"), Path.cwd()
    for kind in ("state", "weights", "pictures"):
        subject = Subject(root, kind, *KINDS[kind][-1], random.Random(0))
        os.chdir(subject.folder)
        subject.run()
    os.chdir(here)
    return root


def cases():
    if "SEQCLF_CASE" in os.environ:
        return [range(int(os.environ["SEQCLF_CASE"]), int(os.environ["SEQCLF_CASE"]) + 1)]
    return [range(start, start + CHUNK) for start in range(0, CASES, CHUNK)]


@pytest.mark.parametrize("kind", ("net", "weights", "state", "solver", "rows", "pictures"))
def test_unchanged_files_are_accepted(kind, folder, monkeypatch):
    every = dict.fromkeys(KINDS[kind])
    for case, file in every if LONG else list(every)[-4:]:
        subject = Subject(folder, kind, case, file, random.Random(0))
        monkeypatch.chdir(subject.folder)
        subject.run()
        for message in subject.refused:
            # a .caffemodel of lisa-caffe or of 2014 lacks the shapes of its inputs; labels are random
            assert (kind == "weights" and "is the top of no earlier layer" in message) or "a label of -" in message


@pytest.mark.parametrize("seeds", cases(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_damaged_files_work_or_raise_caffe_format_error(seeds, folder, monkeypatch):
    for seed in seeds:
        subject = Subject.mutant(folder, seed)
        monkeypatch.chdir(subject.folder)
        before, began = address_space(), time.process_time()
        signal.signal(signal.SIGALRM, hangs)
        signal.alarm(60)
        try:
            subject.run()
            took, grown = time.process_time() - began, address_space() - before
            assert took < SECONDS, f"took {took:.1f} s"
            assert grown < MEGABYTES, f"took {grown} MB of address space"
        except (Exception, Hang) as error:
            what = f"{type(error).__name__}: {error}"
            raise AssertionError(f"SEQCLF_CASE={seed} ({subject.what} in {subject.folder}): {what}") from error
        finally:
            signal.alarm(0)


class Hang(BaseException):
    """Not an ``Exception``, so that the code under test does not catch it."""


def hangs(*_):
    raise Hang("has not ended after a minute")


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


# ---- invalid files and the parts of their errors

INPUTS = 'input: "x" input_shape { dim: 2 dim: 3 } input: "label" input_shape { dim: 2 } '
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } %s } '
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" %s } '


def layer(name, type, bottom, top, more=""):
    return f'layer {{ name: "{name}" type: "{type}" bottom: "{bottom}" top: "{top}" {more} }} '


def given(*dims):
    return f'input: "x" input_shape {{ {" ".join(f"dim: {n}" for n in dims)} }} '


def wide(outputs, inputs=10):
    return given(1, inputs) + layer("ip", "InnerProduct", "x", "y", f"inner_product_param {{ num_output: {outputs} }}")


V0_PAD = (
    'input: "x" input_dim: 1 input_dim: 1 input_dim: 2 input_dim: 2 '
    'layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "x" top: "p" } '
    'layers { layer { name: "a" type: "%s" } bottom: "p" top: "y" }'
)
WRONG_NETS = {
    # the problem: the prototxt, and the parts of the error besides the file
    "a terabyte of input": (given(1000000, 1000000), '"input"', "(1000000, 1000000)"),
    "a terabyte of parameters": (wide(2**31 - 1, 1000), '"ip"', "(2147483647, 1000)"),
    "more parameters than memory": (wide(2_000_000), '"ip"', "0.1 GB"),
    "more dummy data than memory": (
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 100000 dim: 1000 } } }',
        '"d"',
        "0.4 GB",
    ),
    "a negative size": (given(2, -3), '"input"', "(2, -3)"),
    "a size whose product overflows": (given(2**62, 4), '"input"'),
    "33 axes": (given(*[1] * 33), '"input"', "32 axes"),
    "a cycle": (layer("a", "ReLU", "q", "p") + layer("b", "ReLU", "p", "q"), '"a"', '"q"', "later"),
    "a layer that reads itself": (layer("a", "ReLU", "p", "p"), '"a"', '"p"'),
    "two makers of a blob": (given(2) + layer("a", "ReLU", "x", "y") + layer("b", "TanH", "x", "y"), '"b"', '"y"'),
    "two inputs of a name": (given(2) + given(2), '"input"', '"x"'),
    "a blob changed that others read": (
        given(2) + layer("a", "ReLU", "x", "y") + layer("b", "TanH", "x", "x"),
        '"b"',
        '"x"',
        "in place",
    ),
    "two layers of a name": (INPUTS + IP % "" + layer("ip", "ReLU", "y", "z"), '"ip"', "2 layers"),
    "no such blob": (given(2) + layer("a", "ReLU", "z", "y"), '"a"', '"z"'),
    "no such type": (given(2) + layer("a", "Relu", "x", "y"), '"a" (Relu)', "unknown type"),
    "no type": (given(2) + 'layer { name: "a" bottom: "x" top: "y" }', '"a"', "type is missing"),
    "too many bottoms": (INPUTS + layer("a", "ReLU", "x", "y", 'bottom: "label"'), '"a"', "2 bottoms"),
    "too many tops": (given(2) + layer("a", "ReLU", "x", "y", 'top: "z"'), '"a"', "2 tops"),
    "too many loss weights": (INPUTS + IP % "loss_weight: 1 loss_weight: 2", '"ip"', "loss_weight", "2 values"),
    "too few propagate_down": (
        INPUTS + IP % "" + LOSS % "propagate_down: true",
        '"loss"',
        "propagate_down",
        "1 values",
    ),
    "too many params": (INPUTS + IP % "param {} param {} param {}", '"ip"', "param", "3 entries"),
    "params of a layer that has none": (
        given(2) + layer("a", "ReLU", "x", "y", "param {}"),
        '"a"',
        "param",
        "1 entries",
    ),
    "include and exclude": (given(2) + layer("a", "ReLU", "x", "y", "include {} exclude {}"), '"a"', "exclude"),
    "shared parameters of two shapes": (
        INPUTS + IP % 'param { name: "w" }' + layer("b", "Scale", "x", "z", 'param { name: "w" }'),
        '"b"',
        '"w"',
        "(4, 3)",
        "(3,)",
    ),
    "a filler without bounds": (
        INPUTS + IP.replace("4 }", '4 weight_filler { type: "uniform" max: inf } }') % "",
        '"ip"',
    ),
    "no such filler": (
        INPUTS + IP.replace("4 }", '4 weight_filler { type: "normal" } }') % "",
        '"ip"',
        '"normal"',
        "gaussian",
    ),
    "a V0 layer of no type": ('layers { layer { name: "a" type: "rel" } }', '"a" (rel)', "unknown type"),
    "a V0 layer that reads padding": (V0_PAD % "relu", '"a" (relu)', '"pad"'),
    "a V0 layer without its bottom": ('layers { layer { name: "a" type: "relu" } bottom: "x" }', '"a" (relu)', '"x"'),
    "several problems": (
        given(2)
        + layer("a", "NotThere", "x", "y", "not_there_param { width: 3 }")
        + layer("b", "Pooling", "x", "z", "pooling_param { kernel_size: 1 side: 2 }")
        + layer("c", "AlsoNot", "y", "u")
        + layer("d", "ReLU", "u", "v")
        + layer("e", "ReLU", "w", "w"),
        "6 problems",
        "expected 4 axes",
        '"a" (NotThere): unknown field not_there_param',
        '"b" (Pooling): unknown field pooling_param.side',
        '"e" (ReLU): bottom "w"',
        '"a" (NotThere): unknown type',
        '"c" (AlsoNot): unknown type',
    ),
    "ceil_mode that contradicts round_mode": (
        given(2) + layer("a", "Pooling", "x", "y", "pooling_param { round_mode: FLOOR ceil_mode: true }"),
        '"a"',
        "round_mode",
        "ceil_mode",
    ),
    "both forms": ('layer { name: "a" } layers { name: "b" type: RELU }', "layers"),
    "a V1 layer without a type": ('layers { name: "a" }', '"a"', "type"),
    "input_dim of too few": ('input: "x" input_dim: 1 input_dim: 2', "input_dim", "2 values"),
    "input_shape of too few": ('input: "x" input: "z" input_shape {}', "input_shape", "1 shapes"),
    "both ways to say sizes": ('input: "x" input_shape { dim: 1 } input_dim: 1', "input_dim"),
    "a required field": (given(2) + layer("a", "Clip", "x", "y", "clip_param { min: 1 }"), "clip_param.max"),
    "no such field": ("\n\nlayer { colour: 3 }", "line 3", "colour"),
    "no such value": ("\nlayer { pooling_param { pool: MEDIAN } }", "line 2", "MEDIAN"),
    "a number too large": ("layer { pooling_param { pad: 4294967296 } }", "line 1", "4294967296"),
    "a number that is none": ("layer { pooling_param { pad: nan } }", "line 1", "nan"),
    "an unfinished string": ('\nname: "x', "line 2"),
    "an unfinished layer": ("layer {", "Expected"),
    "deep nesting": ("layer { " * 100_000, "line 1"),
    "text that is not UTF-8": (b'name: "caf\xe9"', "UTF-8"),
    "a string that is not UTF-8": (r'name: "\377"', "line 1"),
    "a binary file": (b"\x0a\xff\xff\xff\xff\x0f", "line 2"),
}


@pytest.mark.parametrize("what", WRONG_NETS)
def test_an_invalid_net_is_refused_by_layer_and_field(what, tmp_path):
    text, *parts = WRONG_NETS[what]
    path = tmp_path / "wrong.prototxt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = address_space()
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_net(path)
    assert address_space() - before < 100
    for part in (str(path), *parts):
        assert part in str(error.value)
    assert str(error.value).replace("\n", "").isprintable()


def changed_layer(**fields):
    def change(net):
        for name, value in fields.items():
            setattr(net.layer[0], name, value)

    return change


def changed_blob(j, change):
    def of_net(net):
        change(net.layer[0].blobs[j])

    return of_net


def twice(net):
    net.layer.add().CopyFrom(net.layer[0])


def without(field):
    return lambda blob: blob.ClearField(field)


WRONG_WEIGHTS = {
    # the problem: a change of the net's message, and the parts of the error
    "one value more": (changed_blob(0, lambda b: b.data.append(1)), '"ip"', "blob 0", "(4, 3)", "13"),
    "one value less": (changed_blob(1, lambda b: b.data.pop()), '"ip"', "blob 1", "(4,)", "3"),
    "no values": (changed_blob(0, without("data")), '"ip"', "blob 0", "(4, 3)", "0"),
    "no shape": (changed_blob(0, without("shape")), '"ip"', "blob 0", "()", "12"),
    "a negative size": (changed_blob(0, lambda b: b.shape.dim.extend([-1])), '"ip"', "blob 0", "(4, 3, -1)"),
    "a terabyte": (changed_blob(0, lambda b: b.shape.dim.extend([10**11])), '"ip"', "blob 0", "100000000000"),
    "sizes that overflow": (changed_blob(0, lambda b: b.shape.dim.extend([2**62, 4])), '"ip"', "blob 0"),
    "33 axes": (changed_blob(1, lambda b: b.shape.dim.extend([1] * 32)), '"ip"', "blob 1", "32 axes"),
    "another shape": (changed_blob(0, lambda b: b.shape.dim.reverse()), '"ip"', "blob 0", "(3, 4)", "(4, 3)"),
    "swapped blobs": (lambda net: net.layer[0].blobs.reverse(), '"ip"', "blob 0", "(4,)", "(4, 3)"),
    "a blob more": (lambda net: net.layer[0].blobs.add(data=[1]), '"ip"', "3 blobs", "2"),
    "a blob less": (lambda net: net.layer[0].blobs.pop(), '"ip"', "1 blobs", "2"),
    "no blobs": (lambda net: net.layer[0].ClearField("blobs"), '"ip"', "0 blobs", "2"),
    "the same layer twice": (twice, '"ip"', "two layers"),
    "another layer": (changed_layer(name="other"), "no weights for layer ip", "layer other"),
    "weights of a layer that has none": (changed_layer(name="relu"), '"relu"', "2 blobs"),
    "both forms": (lambda net: net.layers.add(name="old"), "layers"),
    "a legacy shape of another size": (
        changed_blob(0, lambda b: (b.ClearField("shape"), setattr(b, "num", 12), setattr(b, "channels", 1))),
        '"ip"',
        "blob 0",
        "(12, 1, 0, 0)",
    ),
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A net and its weights, as a message."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(INPUTS + IP % "" + layer("relu", "ReLU", "y", "z"))
    message = schema().NetParameter()
    ip = message.layer.add(name="ip", type="InnerProduct")
    for shape in ((4, 3), (4,)):
        ip.blobs.add(shape={"dim": shape}, data=range(math.prod(shape)))
    return message


@pytest.mark.parametrize("what", WRONG_WEIGHTS)
def test_invalid_weights_are_refused_by_layer_and_blob(what, small):
    Path("right.caffemodel").write_bytes(small.SerializeToString())
    caffe.load_net("net.prototxt", "right.caffemodel")
    change, *parts = WRONG_WEIGHTS[what]
    change(small)
    Path("wrong.caffemodel").write_bytes(small.SerializeToString())
    before = address_space()
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_net("net.prototxt", "wrong.caffemodel")
    assert address_space() - before < 100
    for part in ("wrong.caffemodel", *parts):
        assert part in str(error.value)


@pytest.mark.parametrize("size", [2**31 - 1, 2**40, 2**63 - 1, 2**64 - 1])
def test_a_length_beyond_the_file_allocates_no_memory(size, small):
    data = small.SerializeToString()
    for at in (0, data.index(b"InnerProduct"), len(data)):
        Path("wrong.caffemodel").write_bytes(data[:at] + varint(100 << 3 | 2) + varint(size) + data[at:])
        before = address_space()
        for read in (caffe.read_net, read_weights):
            with pytest.raises(CaffeFormatError, match=r"wrong\.caffemodel"):
                read("wrong.caffemodel")
        assert address_space() - before < 100


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\0b", b"x" * 10**6, b"", b"\n", b"\x1b[2J"])
def test_a_layer_name_may_contain_any_bytes(name, small):
    small.layer[0].ClearField("name")
    rest = small.layer[0].SerializeToString()
    named = varint(1 << 3 | 2) + varint(len(name)) + name + rest
    Path("wrong.caffemodel").write_bytes(varint(100 << 3 | 2) + varint(len(named)) + named)
    with pytest.raises(CaffeFormatError, match=r"wrong\.caffemodel") as error:
        caffe.load_net("net.prototxt", "wrong.caffemodel")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 3000


@pytest.mark.parametrize("ending", ["caffemodel", "solverstate", "h5", "prototxt"])
def test_pipes_folders_and_devices_are_refused_without_waiting(ending, small):
    os.mkfifo(f"pipe.{ending}")
    Path(f"folder.{ending}").mkdir()
    os.symlink("/dev/zero", f"endless.{ending}")
    reads = {
        "caffemodel": lambda file: caffe.load_net("net.prototxt", file),
        "solverstate": read_state,
        "h5": lambda file: caffe.load_net("net.prototxt", file),
        "prototxt": caffe.load_net,
    }
    for file in (f"{name}.{ending}" for name in ("pipe", "folder", "endless", "none")):
        with pytest.raises(CaffeFormatError, match=file):
            reads[ending](file)


def h5_weights(change):
    with h5py.File("wrong.h5", "w") as file:
        file["data/ip/0"] = np.zeros((4, 3), "f4")
        file["data/ip/1"] = np.zeros(4, "f4")
        file.create_group("data/relu")
        change(file)


def remake(name, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


WRONG_H5 = {
    "no data": (lambda file: file.move("data", "other"), "data"),
    "another layer": (lambda file: file.move("data/ip", "data/other"), "no weights for layer ip", "layer other"),
    "another shape": (remake("data/ip/0", data=np.zeros((3, 4), "f4")), '"ip"', "blob 0", "(3, 4)", "(4, 3)"),
    "a blob less": (lambda file: file.pop("data/ip/0"), '"ip"', "1 blobs", "2"),
    "a blob more": (lambda file: file.create_dataset("data/ip/2", data=1.0), '"ip"', "3 blobs"),
    "a blob of a layer that has none": (lambda file: file.create_dataset("data/relu/0", data=1.0), '"relu"', "1 blobs"),
    "no number": (lambda file: file.move("data/ip/1", "data/ip/bias"), "/data/ip/bias"),
    "no layer": (lambda file: file.move("data/ip/1", "data/1"), "/data/1"),
    "no numbers": (remake("data/ip/1", data=np.array([b"x"] * 4)), '"ip"', "blob 1"),
    "nothing": (remake("data/ip/1", data=h5py.Empty("f4")), '"ip"', "blob 1"),
    "a terabyte": (remake("data/ip/0", shape=(10**6, 10**6), dtype="f4"), '"ip"', "blob 0", "(1000000, 1000000)"),
    "4 GB that are not there": (remake("data/ip/0", shape=(2**30,), dtype="f4"), '"ip"', "blob 0", "more values"),
    "4 GB compressed": (
        remake("data/ip/0", shape=(2**30,), dtype="f4", chunks=(2**20,), compression="gzip"),
        '"ip"',
        "blob 0",
        "more values",
    ),
}


@pytest.mark.parametrize("what", WRONG_H5)
def test_invalid_hdf5_weights_are_refused_by_layer_and_blob(what, small):
    h5_weights(lambda file: None)
    caffe.load_net("net.prototxt", "wrong.h5")
    change, *parts = WRONG_H5[what]
    h5_weights(change)
    before = address_space()
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_net("net.prototxt", "wrong.h5")
    assert address_space() - before < 100
    for part in ("wrong.h5", *parts):
        assert part in str(error.value)


SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" '
WRONG_SOLVERS = {
    "no net": ('base_lr: 0.1 lr_policy: "fixed"', "train_net"),
    "two nets": (SOLVER + 'train_net: "net.prototxt"', "net, train_net"),
    "a net that is not there": (SOLVER.replace("net.", "no."), "field net", '"no.prototxt"'),
    "weights that are not there": (SOLVER + 'weights: "none.caffemodel"', "field weights", '"none.caffemodel"'),
    "no such policy": (SOLVER.replace("fixed", "stepwise"), "lr_policy", '"stepwise"'),
    "a policy without its field": (SOLVER.replace("fixed", "step"), "gamma and stepsize"),
    "no rate": ('net: "net.prototxt" lr_policy: "fixed"', "base_lr"),
    "no such type": (SOLVER + 'type: "Sgd"', '"Sgd"'),
    "two types": (SOLVER + 'type: "SGD" solver_type: ADAM', "solver_type"),
    "no such penalty": (SOLVER + 'regularization_type: "L3"', '"L3"'),
    "no iter_size": (SOLVER + "iter_size: 0", "field iter_size", "is 0"),
    "no average_loss": (SOLVER + "average_loss: 0", "field average_loss", "is 0"),
    "no test_interval": (SOLVER + "test_iter: 1", "field test_interval"),
    "a negative test_interval": (SOLVER + "test_iter: 1 test_interval: -1", "field test_interval"),
    "too few test_iter": (SOLVER + 'test_net: "net.prototxt" test_interval: 1', "field test_iter"),
    "too many test_state": (SOLVER + "test_iter: 1 test_interval: 1 test_state {} test_state {}", "field test_state"),
    "momentum that is no number": (SOLVER + "momentum: nan", "momentum nan"),
}


@pytest.mark.parametrize("what", WRONG_SOLVERS)
def test_an_invalid_solver_is_refused_by_field(what, small):
    text, *parts = WRONG_SOLVERS[what]
    Path("solver.prototxt").write_text(text)
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_solver("solver.prototxt")
    for part in ("solver.prototxt", *parts):
        assert part in str(error.value)


WRONG_STATES = {
    "a negative iteration": (lambda state: setattr(state, "iter", -1), "field iter", "-1"),
    "a negative step": (lambda state: setattr(state, "current_step", -5), "field current_step", "-5"),
    "weights that are not there": (
        lambda state: setattr(state, "learned_net", "no.caffemodel"),
        "learned_net",
        '"no.caff',
    ),
    "weights that never end": (lambda state: setattr(state, "learned_net", "/dev/zero"), "learned_net", "/dev/zero"),
    "weights of no name": (lambda state: setattr(state, "learned_net", "a\0b"), "learned_net", "a\\x00b"),
    "a blob less": (lambda state: state.history.pop(), "history of 1 blobs", "2"),
    "a blob more": (lambda state: state.history.add(data=[1]), "history of 3 blobs", "2"),
    "blobs swapped": (lambda state: state.history.reverse(), "history blob 0", "(4,)", "(4, 3)"),
    "one value less": (lambda state: state.history[1].data.pop(), "history 1", "(4,)", "3"),
}


@pytest.mark.parametrize("what", WRONG_STATES)
def test_an_invalid_snapshot_is_refused_by_field(what, small):
    Path("solver.prototxt").write_text(SOLVER)
    state = schema().SolverState(iter=3)
    for blob in small.layer[0].blobs:
        state.history.add().CopyFrom(blob)
    Path("right.solverstate").write_bytes(state.SerializeToString())
    assert caffe.load_solver("solver.prototxt", snapshot="right.solverstate").iter == 3
    change, *parts = WRONG_STATES[what]
    change(state)
    Path("wrong.solverstate").write_bytes(state.SerializeToString())
    with pytest.raises(CaffeFormatError) as error:
        caffe.load_solver("solver.prototxt", snapshot="wrong.solverstate")
    for part in ("wrong.solverstate", *parts):
        assert part in str(error.value)


def test_iterations_are_limited_as_in_caffe(small):
    Path("solver.prototxt").write_text(SOLVER)
    Path("late.solverstate").write_bytes(
        schema().SolverState(iter=2**31 - 1, history=small.layer[0].blobs).SerializeToString()
    )
    solver = caffe.load_solver("solver.prototxt", snapshot="late.solverstate")
    with pytest.raises(CaffeFormatError, match=r"solver\.prototxt.*2\*\*31 - 1"):
        solver.step(1)


# ---- unusual files that Caffe accepts


def blobs_of(text, **inputs):
    Path("legal.prototxt").write_text(text)
    net = caffe.load_net("legal.prototxt")
    return net, net(**inputs)


def test_a_setting_for_another_type_of_layer_is_ignored(small):
    more = "pooling_param { kernel_size: 0 } transform_param { crop_size: 99 } loss_param { ignore_label: 1 }"
    net, blobs = blobs_of(given(2) + layer("a", "ReLU", "x", "y", more), x=torch.tensor([-1.0, 1.0]))
    assert blobs["y"].tolist() == [0, 1]
    assert net.message.layer[1].pooling_param.kernel_size == 0


def test_a_loss_without_a_top_is_part_of_the_total(small):
    """Caffe adds a top that no layer can read, and does not display it (Net::Init, AutoTopBlobs)."""
    labels = torch.zeros(2)
    net, blobs = blobs_of(
        INPUTS + IP % "" + LOSS.replace('top: "loss"', "") % "" + LOSS % "", x=torch.ones(2, 3), label=labels
    )
    assert net.outputs == ["loss"]
    assert net.loss(blobs) == 2 * blobs["loss"]
    caffe.save_net(net, "saved.caffemodel")
    saved = caffe.read_net("saved.caffemodel")
    loss = next(one for one in saved.layer if one.name == "loss")
    assert (list(loss.top), list(loss.loss_weight)) == ([], [1])
    assert caffe.load_net("legal.prototxt", "saved.caffemodel").outputs == ["loss"]


def test_the_second_top_of_softmax_loss_has_the_probabilities(small):
    Path("net.prototxt").write_text(INPUTS + IP % "" + LOSS % 'top: "p" loss_weight: 1 loss_weight: 0')
    net = caffe.load_net("net.prototxt")
    net.params["ip"][0].data.normal_()
    blobs = net(x=torch.randn(2, 3), label=torch.ones(2))
    assert torch.allclose(blobs["p"], blobs["y"].softmax(1))
    assert torch.allclose(blobs["loss"], -blobs["p"][:, 1].log().mean())
    net.loss(blobs).backward()
    assert net.params["ip"][0].grad.abs().sum() > 0
    with pytest.raises(CaffeFormatError, match=r'"loss".*loss_weight'):
        blobs_of(INPUTS + IP % "" + LOSS % 'top: "p"')


def test_a_layer_keeps_its_own_phase(small):
    text = (
        given(1000) + layer("a", "Dropout", "x", "y", "phase: TRAIN") + layer("b", "Dropout", "x", "z", "phase: TEST")
    )
    net, blobs = blobs_of(text, x=torch.ones(1000))
    assert 0 < (blobs["y"] == 0).sum() < 1000
    assert (net.train()(x=torch.ones(1000))["z"] == 1).all()


def test_a_blob_without_axes_has_no_shape(small):
    """Blob::ToProto writes no shape for the slope of a PReLU whose channels share it."""
    text = given(2, 3) + layer("a", "PReLU", "x", "y", "prelu_param { channel_shared: true }")
    net, _ = blobs_of(text, x=torch.zeros(2, 3))
    net.params["a"][0].data.fill_(0.75)
    caffe.save_net(net, "saved.caffemodel")
    blob = next(one for one in caffe.read_net("saved.caffemodel").layer if one.name == "a").blobs[0]
    assert not blob.HasField("shape") and list(blob.data) == [0.75]
    assert caffe.load_net("legal.prototxt", "saved.caffemodel").params["a"][0] == 0.75


def test_hdf5_files_contain_shared_parameters_once(small):
    """Net::ToHDF5 writes a shared parameter in the group of its owner only."""
    shared = IP % 'param { name: "w" }'
    text = INPUTS + shared + shared.replace('"ip"', '"ip2"').replace('"y"', '"z"')
    text += shared.replace('"ip"', '"ip3"').replace('"y"', '"q"').replace("4 }", "4 bias_term: false }")
    net, _ = blobs_of(text, x=torch.zeros(2, 3), label=torch.zeros(2))
    for p in net.parameters():
        p.data.normal_()
    caffe.save_net(net, "saved.h5")
    with h5py.File("saved.h5") as file:
        assert {name: sorted(file["data"][name]) for name in ("ip", "ip2", "ip3")} == {
            "ip": ["0", "1"],
            "ip2": ["1"],
            "ip3": [],
        }
    again = caffe.load_net("legal.prototxt", "saved.h5")
    for name, blobs in net.params.items():
        assert all(torch.equal(a, b) for a, b in zip(blobs, again.params[name], strict=True))
    with h5py.File("saved.h5", "r+") as file:
        del file["data/ip2/1"]
    with pytest.raises(CaffeFormatError, match=r'saved\.h5: layer "ip2": .* 0 blobs.* 2'):
        caffe.load_net("legal.prototxt", "saved.h5")


@pytest.mark.parametrize("kind", ["i4", "u1", ">f4", "f2", "f8", ">f8"])
def test_hdf5_weights_of_any_numeric_type_are_read(kind, small):
    h5_weights(remake("data/ip/0", data=np.arange(12).reshape(4, 3).astype(kind)))
    assert caffe.load_net("net.prototxt", "wrong.h5").params["ip"][0].flatten().tolist() == list(range(12))


def test_doubles_beyond_float32_become_infinite(small):
    small.layer[0].blobs[1].ClearField("data")
    small.layer[0].blobs[1].double_data.extend([1e300, -1e300, 1, 1e-300])
    Path("double.caffemodel").write_bytes(small.SerializeToString())
    bias = caffe.load_net("net.prototxt", "double.caffemodel").params["ip"][1]
    assert bias.tolist() == [math.inf, -math.inf, 1, 0]


def test_snapshots_with_four_axes_are_read(small):
    Path("solver.prototxt").write_text(SOLVER)
    state = schema().SolverState(iter=3)
    state.history.add(num=1, channels=1, height=4, width=3, data=range(12))
    state.history.add(num=1, channels=1, height=1, width=4, data=range(4))
    Path("old.solverstate").write_bytes(state.SerializeToString())
    weight, bias = caffe.load_solver("solver.prototxt", snapshot="old.solverstate").optimizer.history()
    assert (weight.flatten().tolist(), bias.tolist()) == (list(range(12)), list(range(4)))


def test_zero_test_iterations_give_no_results(small):
    Path("solver.prototxt").write_text(SOLVER + "test_iter: 0 test_interval: 1 test_compute_loss: true")
    lines = []
    solver = caffe.load_solver("solver.prototxt", log=lines.append)
    solver.feed = {"x": np.ones((2, 3)), "label": np.zeros(2)}
    solver.step(1)
    assert "Iteration 0, Testing net (#0)" in lines
    assert not any("Test net output" in line or "Test loss" in line for line in lines)


def test_a_solvers_states_choose_the_phase(small):
    for state, training in (("", True), ("train_state { phase: TEST }", False)):
        Path("solver.prototxt").write_text(SOLVER + state)
        assert caffe.load_solver("solver.prototxt").net.training is training
    Path("solver.prototxt").write_text(SOLVER)
    Path("net.prototxt").write_text("state { phase: TEST } " + Path("net.prototxt").read_text())
    assert not caffe.load_solver("solver.prototxt").net.training
