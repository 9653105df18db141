"""Invalid input ends with a one-line message and exit code 2, and no file is lost."""

import gzip
import json
import os
import shutil
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision import datasets

import seqclf
import seqclf.data.digits.mnist_files
from seqclf import Clips, Data, SeqclfError, mnist
from seqclf.experiment.config import build
from seqclf.experiment.loading import load_experiment
from seqclf.runtime.devices import pick_device
from seqclf.training.loop import train

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "mnist_lastframe.py"
SMALL = ("steps=2", "batch_size=4", "data.source=digits", "model.temporal.hidden=8")
MODULE = seqclf.data.digits.mnist_files
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
FILES = {
    IMAGES: (2051, 60_000, 28, 28),
    LABELS: (2049, 60_000),
    "t10k-images-idx3-ubyte": (2051, 10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (2049, 10_000),
}


@pytest.fixture
def refused(tool):
    """Runs a command that must fail with 2 and one line, and returns the line."""

    def run(name: str, *arguments: object) -> str:
        code, _, message = tool(name, *arguments)
        assert code == 2
        assert (
            message.startswith("error: ")
            and message.count("\n") == 1
            and message.endswith("\n")
            and "Traceback" not in message
        )
        return message

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of two steps, without validation."""
    folder = tmp_path_factory.mktemp("run") / "run"
    train(load_experiment(CONFIG, SMALL), folder, "cpu")
    return folder


@pytest.fixture
def raw(tmp_path) -> Path:
    """MNIST/raw with files of the right size, all zeros (sparse, so that they take no space)."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, (magic, *shape) in FILES.items():
        write_idx(folder / name, magic, shape)
    return folder


def write_idx(path: Path, magic: int, shape: list[int]) -> None:
    size = 1
    for n in shape:
        size *= n
    with path.open("wb") as stream:
        stream.write(struct.pack(f">{1 + len(shape)}i", magic, *shape))
        stream.truncate(stream.tell() + size)


@pytest.fixture
def mirror(monkeypatch):
    """Sets the mirrors of MNIST and short timeouts, without a proxy."""

    def use(*urls: str, patience: float = 0.5) -> None:
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(datasets.MNIST, "mirrors", list(urls))
        monkeypatch.setattr(MODULE, "PROBE_SECONDS", patience)

    return use


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/"


# settings and configs


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.temporal.hiden=5", "hidden"),
        ("stepps=5", "steps"),
        ("steps=many", "steps=many"),
        ("optimizer.lr=fast", "optimizer.lr=fast"),
        ("data.source=minst", "auto, mnist, digits"),
        ("model.temporal=LTSM", "LSTM"),
        ("batch_size=0", "batch_size=0"),
        ("validation=1.0", "validation=1.0"),
        ("data.labelling=given", "labelling.last_frame"),
        ("model.temporal.hidden=0", "hidden"),
        ("model.temporal.dropout=1", "dropout"),
        ("justaword", "expected key=value"),
    ],
)
def test_a_wrong_setting_is_refused_by_train(refused, tmp_path, override, message):
    sentence = refused("train", "--config", CONFIG, "--workdir", tmp_path / "run", *SMALL, override)
    assert message in sentence


@pytest.mark.parametrize(
    "override", ["optimizer.lr=-1", "seed=9223372036854775808000", "model=LSTM", "model.preprocess.mean=[0.1,0.2,0.3]"]
)
def test_a_setting_that_pytorch_refuses_is_named(refused, tmp_path, override):
    settings = SMALL if override != "model=LSTM" else SMALL[:3]
    refused("train", "--config", CONFIG, "--workdir", tmp_path / "run", *settings, override)


def test_fp16_on_the_cpu_trains_or_is_refused(tmp_path):
    try:
        train(load_experiment(CONFIG, [*SMALL, "precision=fp16"]), tmp_path / "run", "cpu")
    except SeqclfError as error:
        assert "fp16" in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("def get_config(:\n", "SyntaxError"),
        ("import no_such_module_anywhere\n", "(line 1): ModuleNotFoundError: No module named"),
        ("from seqclf import LTSM\n", "(line 1): ImportError: cannot import name 'LTSM'"),
        ("x = 1\n", "has no function get_config()"),
        ("get_config = 5\n", "has no function get_config()"),
        ("def get_config():\n    return {'steps': 5}\n", "returned dict, expected seqclf.Experiment"),
        ("def get_config():\n    pass\n", "returned NoneType"),
        ("def get_config():\n    return 1 / 0\n", "(line 2): ZeroDivisionError"),
        ("from seqclf import Experiment\ndef get_config():\n    return Experiment(step=3)\n", "'step'"),
        ("def get_config(size):\n    pass\n", "TypeError"),
    ],
)
def test_a_broken_config_is_refused_by_path_and_line(refused, tmp_path, text, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    sentence = refused("train", "--config", path, "--workdir", tmp_path / "run")
    assert sentence.startswith(f"error: config {path}") and message in sentence
    assert not (tmp_path / "run").exists()


OWN_DATA = """from functools import partial
import torch
from seqclf import Clips, Data, Experiment, FrameSequenceClassifier

def read(path):
    with open(path) as file: return [len(line) for line in file]

def data(path="there.csv", key="x", clips=4):
    {"x": 0}[key]
    read(path)
    part = Clips(list(torch.zeros(clips, 2, 3)), torch.arange(clips) % 2)
    return Data(part, part, ["a", "b"], "own")

def falling(step, steps):
    return 1 / (1 - step)

def get_config():
    return Experiment(
        partial(data), FrameSequenceClassifier, partial(torch.optim.SGD, lr=0.1), steps=1, batch_size=2
    )
"""


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.path=none.csv", ("setting data: FileNotFoundError", "'none.csv'", "own.py, line 6)")),
        ("data.key=y", ("setting data: KeyError: 'y'", "own.py, line 9)")),
        ("data.clips=0", ("at least one clip", "own.py, line 11)")),
    ],
)
def test_an_error_in_a_function_of_data_is_named_by_its_line(refused, tool, tmp_path, monkeypatch, override, named):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN_DATA)
    Path("there.csv").touch()
    command = ("train", "--config", "own.py", "--workdir", "run", "--device", "cpu")
    line = refused(*command, override)
    assert all(words in line for words in named), line
    assert tool(*command)[0] == 0
    line = refused("evaluate", "run", override)
    assert all(words in line for words in named), line


def test_an_error_in_a_schedule_is_named_by_its_line(refused, tmp_path):
    config = tmp_path / "own.py"
    config.write_text(OWN_DATA.replace("steps=1", "steps=2, schedule=falling").replace("    read(path)\n", ""))
    line = refused("train", "--config", config, "--workdir", tmp_path / "run", "--device", "cpu")
    assert "setting schedule: ZeroDivisionError" in line and "(own.py, line 14)" in line


def test_an_error_in_a_function_of_the_user_keeps_its_cause():
    with pytest.raises(SeqclfError, match="setting data") as caught:
        build("data", lambda: Path("none.csv").read_text())
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_config_that_is_not_a_python_file_is_refused(refused, tmp_path):
    (tmp_path / "mine.txt").write_text("steps: 5\n")
    assert "no such file" in refused("train", "--config", tmp_path)
    assert "not a Python file" in refused("train", "--config", tmp_path / "mine.txt")


def test_train_names_missing_options(refused, tmp_path):
    assert "--config PATH" in refused("train")
    assert "--resume needs --workdir" in refused("train", "--config", CONFIG, "--resume")
    (tmp_path / "file").write_text("")
    assert "run folder" in refused("train", "--config", CONFIG, "--workdir", tmp_path / "file", *SMALL)


def test_show_prints_the_config_and_runs_nothing(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, shown, message = tool("train", "--config", CONFIG, "--show", "model.temporal.hidden=256")
    assert (code, message, list(tmp_path.iterdir())) == (0, "", [])
    assert "hidden=256" in shown and compile(shown, "shown", "exec")


# data


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["magic", "truncated", "longer", "count", "empty", "header"])
def test_a_damaged_mnist_file_is_named(raw, tmp_path, name, damage):
    magic, *shape = FILES[name]
    path = raw / name
    if damage == "magic":
        write_idx(path, 2050, shape)
    elif damage == "count":
        write_idx(path, magic, [shape[0] - 1, *shape[1:]])
    else:
        size = {"truncated": path.stat().st_size - 1, "longer": path.stat().st_size + 1, "empty": 0, "header": 6}
        os.truncate(path, size[damage])
    with pytest.raises(SeqclfError, match=r"damaged.* delete it") as message:
        mnist(root=str(tmp_path), source="auto")  # damaged files are no reason to take the digits
    assert str(message.value).startswith(f"{path}: ")


def test_a_damaged_mnist_file_ends_the_command_with_one_line(refused, raw, tmp_path):
    os.truncate(raw / LABELS, 1000)
    sentence = refused("train", "--config", CONFIG, "--workdir", tmp_path / "run", f"data.root={tmp_path}", "steps=1")
    assert str(raw / LABELS) in sentence and "1,000 bytes" in sentence
    assert not (tmp_path / "run").exists()


def test_an_mnist_label_that_is_not_a_digit_is_named_by_sample(raw, tmp_path):
    with (raw / LABELS).open("r+b") as stream:
        stream.seek(8 + 1234)
        stream.write(b"\x0b")
    with pytest.raises(SeqclfError, match="train part: label 11 of sample 1234 "):
        mnist(root=str(tmp_path), source="mnist")


def test_whole_files_in_place_are_read_without_a_network(raw, tmp_path, mirror):
    mirror("http://127.0.0.1:1/")
    data = mnist(root=str(tmp_path), source="mnist")
    assert (len(data.train), len(data.test), data.warning) == (60_000, 10_000, None)


@pytest.mark.parametrize("damage", ["truncated", "checksum", "flipped"])
def test_a_damaged_or_half_downloaded_archive_is_named(tmp_path, mirror, damage):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    packed = bytearray(gzip.compress(bytes(range(256)) * 100))
    if damage == "truncated":
        packed = packed[:-20]
    else:
        packed[10 if damage == "flipped" else -5] ^= 0xFF
    (folder / f"{IMAGES}.gz").write_bytes(packed)
    mirror("http://127.0.0.1:1/")
    with pytest.raises(SeqclfError, match=rf"{IMAGES}\.gz: damaged"):
        mnist(root=str(tmp_path), source="mnist")
    assert not (folder / IMAGES).exists()


def test_if_mnist_is_neither_on_disk_nor_available_its_folder_is_named(refused, tmp_path, mirror, closed_port):
    mirror(closed_port, closed_port)
    began = time.monotonic()
    arguments = ["--config", CONFIG, "--workdir", tmp_path / "run", f"data.root={tmp_path}", "data.source=mnist"]
    sentence = refused("train", *arguments)
    assert time.monotonic() - began < 60
    assert f"data.source=mnist: MNIST is not in {tmp_path / 'MNIST' / 'raw'} ({IMAGES}, " in sentence
    assert "no mirror of it answered" in sentence and "data.root=" in sentence


def test_without_mnist_auto_takes_the_digits_with_a_warning(tool, tmp_path, mirror, closed_port):
    mirror(closed_port)
    data = mnist(root=str(tmp_path), source="auto")
    assert data.warning and "not MNIST" in data.warning and (len(data.train), len(data.test)) == (1438, 359)
    assert mnist(source="digits").warning is None, "digits on request need no warning"
    settings = [*SMALL[:2], SMALL[3], f"data.root={tmp_path}"]
    code, shown, _ = tool("train", "--config", CONFIG, "--workdir", tmp_path / "run", *settings)
    assert code == 0
    assert f"warning: {data.warning}" in shown
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["warning"] == data.warning


def test_evaluation_on_a_substitute_prints_the_warning(tool, run, tmp_path, mirror, closed_port):
    mirror(closed_port)
    code, shown, _ = tool("evaluate", run, "data.source=auto", f"data.root={tmp_path}")
    assert code == 0 and "warning: the data are not MNIST" in shown


def test_a_mirror_that_never_answers_times_out(tmp_path, mirror):
    assert MODULE.PROBE_SECONDS <= 10, "the patience of a user is 15 seconds"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        silent = f"http://127.0.0.1:{server.getsockname()[1]}/"
        mirror(silent, silent)
        began = time.monotonic()
        with pytest.raises(SeqclfError, match="no mirror of it answered"):
            mnist(root=str(tmp_path), source="mnist")
        assert 0.2 < time.monotonic() - began < 30


def test_a_name_lookup_that_never_ends_times_out(tmp_path, mirror, monkeypatch):
    real, looked_up, done = socket.getaddrinfo, [], threading.Event()

    def hanging(host, *args, **kwargs):
        if host != "mirror.invalid":
            return real(host, *args, **kwargs)
        looked_up.append(host)
        done.wait(60)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    mirror("http://mirror.invalid/")
    began = time.monotonic()
    try:
        with pytest.raises(SeqclfError, match="no mirror of it answered"):
            mnist(root=str(tmp_path), source="mnist")
        assert looked_up and time.monotonic() - began < 30
    finally:
        done.set()


@pytest.fixture
def server():
    """A mirror that has all files and sends what ``server.body`` writes."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.server.body(self.wfile)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.daemon_threads = True
        threading.Thread(target=served.serve_forever, daemon=True).start()
        served.url = f"http://127.0.0.1:{served.server_port}/"
        yield served
        served.shutdown()


def test_a_mirror_that_stops_halfway_times_out(tmp_path, mirror, server):
    done = threading.Event()
    server.body = lambda stream: (stream.write(b"half"), stream.flush(), done.wait(60))
    mirror(server.url)
    began = time.monotonic()
    try:
        with pytest.raises(SeqclfError, match="the download failed"):
            mnist(root=str(tmp_path), source="mnist")
        assert time.monotonic() - began < 30
    finally:
        done.set()


def test_a_page_of_a_captive_network_is_not_taken_for_mnist(tmp_path, mirror, server):
    server.body = lambda stream: stream.write(b"<html>please log in</html>".ljust(100_000))
    mirror(server.url)
    first = mnist(root=str(tmp_path), source="auto")
    assert first.warning and "the download failed" in first.warning
    assert not list(tmp_path.rglob("*-ubyte"))


def test_the_rest_of_a_failed_download_does_not_block_the_next(tmp_path, mirror, server):
    server.body = lambda stream: stream.write(b"<html>please log in</html>".ljust(100_000))
    mirror(server.url)
    assert [bool(mnist(root=str(tmp_path), source="auto").warning) for _ in range(2)] == [True, True]


@pytest.mark.parametrize(("label", "ok"), [(-1, False), (-100, True), (0, True), (2, True), (3, False), (-101, False)])
def test_a_label_out_of_range_is_refused_before_training(label, ok):
    clips = Clips(torch.zeros(4, 2, 3), torch.zeros(4))
    wrong = Clips(torch.zeros(4, 2, 3), torch.tensor([0, 1, label, 0]))
    for train_part, test, validation, part in ((wrong, clips, clips, "train"), (clips, wrong, clips, "test")):
        if ok:
            Data(train_part, test, "abc", "mine", validation)
            continue
        with pytest.raises(SeqclfError, match=rf"mine, {part} part: label {label} of sample 2 .* 0 to 2"):
            Data(train_part, test, "abc", "mine", validation)


# devices


def test_an_unknown_device_is_refused(refused, tmp_path):
    arguments = ["--config", CONFIG, "--workdir", tmp_path / "run", *SMALL]
    for name in ("nonsense", "meta", "cpu:x", ""):
        assert f"--device {name}: expected auto, cpu, cuda or cuda:<n>" in refused(
            "train", *arguments, "--device", name
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(SeqclfError, match="--device cuda:99"):
        pick_device("cuda:99")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_on_a_machine_without_it_is_refused(refused, run, tmp_path):
    for tool_name, *arguments in (("train", "--config", CONFIG), ("evaluate", run), ("predict", run, "x.png")):
        sentence = refused(tool_name, *arguments, "--device", "cuda")
        assert "--device cuda: PyTorch finds 0 CUDA devices" in sentence


# runs


def test_a_folder_that_is_not_a_run_is_refused(refused, tmp_path):
    for name in ("evaluate", "predict"):
        for folder in (tmp_path, tmp_path / "absent"):
            assert f"{folder} is not a run folder" in refused(name, folder, *["x.png"][: name == "predict"])
    absent = tmp_path / "absent"
    assert f"{absent} is not a run folder" in refused("compare", tmp_path, absent, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SeqclfError, match="is not a run folder"):
        seqclf.load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "best"], "best"),
        (["--checkpoint", "99"], " 99"),
        (["--checkpoint", "newer"], "newer"),
        (["--part", "validation"], "validation"),
        (["model.temporal.hidden=9"], "temporal.weight_ih_l0 is (32, 28)"),
        (["model.temporal.layers=4"], "temporal.weight_ih_l3 "),
        (["model.temporal.layers=2"], "temporal.weight_ih_l2 "),
    ],
)
def test_missing_parts_of_a_run_are_refused(refused, run, arguments, message):
    assert message in refused("evaluate", run, *arguments)


@pytest.mark.parametrize("name", ["run.json", "config.py"])
@pytest.mark.parametrize("damage", ["truncated", "empty"])
def test_a_damaged_file_of_a_run_is_named(refused, run, tmp_path, name, damage):
    copy = shutil.copytree(run, tmp_path / "copy")
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    assert str(copy / name) in refused("evaluate", copy)


@pytest.mark.parametrize("content", ["[]", "{}", '"text"', '{"data": 3}'])
@pytest.mark.parametrize("command", ["evaluate", "predict", "report", "export", "compare", "resume"])
def test_json_of_another_content_is_damaged(refused, run, tmp_path, command, content):
    copy = shutil.copytree(run, tmp_path / "copy")
    name = "results.json" if command == "compare" else "run.json"
    (copy / name).write_text(content)
    words = {"predict": ["predict", copy, CONFIG], "resume": ["train", "--resume", "--workdir", copy]}
    assert str(copy / name) in refused(*words.get(command, [command, copy]))


def test_a_run_without_a_whole_checkpoint_is_refused(refused, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    checkpoint = copy / "checkpoints" / "step_2.pt"
    torch.save({"weights": torch.zeros(3)}, checkpoint)
    assert "reads format" in refused("evaluate", copy)
    checkpoint.write_text("no archive")
    assert f"checkpoint {checkpoint} is damaged" in refused("evaluate", copy)
    checkpoint.unlink()
    assert "has no checkpoint yet" in refused("evaluate", copy)


def test_a_checkpoint_that_would_run_code_is_refused_without_running_it(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    torch.save(
        {"format": 1, "step": 2, "model": _Harmful(str(tmp_path / "was_run"))}, copy / "checkpoints" / "step_2.pt"
    )
    with pytest.raises(SeqclfError, match="damaged"):
        seqclf.load(copy)
    assert not (tmp_path / "was_run").exists()


class _Harmful:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


# prediction


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"no image at all", "not a picture"),
        (b"", "not a picture"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "not a picture"),
    ],
)
def test_a_file_that_is_not_an_image_is_refused_by_name(refused, run, tmp_path, content, message):
    path = tmp_path / "digit.png"
    if content is not None:
        path.write_bytes(content)
    assert f"{path}: {message}" in refused("predict", run, path)


def test_a_folder_among_the_images_is_refused(refused, run, tmp_path):
    assert f"{tmp_path}" in refused("predict", run, tmp_path)


def test_a_file_of_a_kind_that_the_run_cannot_read_is_refused(refused, run, tmp_path):
    (tmp_path / "rows.csv").write_text("1,2\n")
    message = refused("predict", run, tmp_path / "rows.csv")
    assert "rows.csv: is read as a video" in message and "an .npy file or an image" in message


@pytest.mark.parametrize("shape", [(28, 27), (28,), (28, 28, 1), (0, 28)])
def test_frames_of_another_shape_are_refused_with_both_shapes(run, shape):
    with pytest.raises(SeqclfError, match=r"\(28,\)|no frames"):
        seqclf.load(run)(torch.zeros(shape, dtype=torch.uint8))


def test_a_streamed_frame_of_another_shape_is_refused_and_the_stream_continues(run):
    stream, frame = seqclf.load(run).stream(), torch.zeros(28)
    stream(frame)
    memory = stream.state
    with pytest.raises(SeqclfError, match=r"the frame: .*\(27,\).*\(28,\)"):
        stream(torch.zeros(27))
    assert stream.state is memory


def test_an_unknown_rule_for_a_clips_label_is_refused(run):
    with pytest.raises(SeqclfError, match='"last" or "mean"'):
        seqclf.load(run)(torch.zeros(28, 28)).label("first")
