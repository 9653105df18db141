"""Benchmarks compare like with like, and measure what they print."""

import importlib.util
import json
from functools import partial

import numpy as np
import pytest
import torch

from seqclf import TCN, Predictor
from seqclf.benchmark import gpu, lrcn, lstm, processes, ragged, reader, streaming, tcn, timing
from seqclf.data.video.file import VideoFile
from seqclf.experiment.loading import load_experiment
from seqclf.training.loop import train


@pytest.mark.parametrize(("title", "codec", "gop"), reader.CODECS)
def test_the_rival_decodes_the_same_frames(tmp_path, title, codec, gop):
    path = str(tmp_path / "video.mp4")
    reader.write_video(path, reader.synthetic_pictures(60, 0), codec, gop)
    for first in (0, 13, 44):
        numbers = range(first, first + 16)
        ours = VideoFile(path).read(numbers).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(np.stack(reader.decode_video([path], 0, numbers)), ours)


@pytest.mark.slow
def test_reading_is_measured_with_one_and_two_threads(tmp_path, capsys):
    reader.reader(videos=2, frames=20, clip=4, pairs=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 * len(reader.CODECS) + 2 * len(reader.jpeg_decoders())
    assert all("clips/s" in line and "ratio" in line for line in lines)


@pytest.mark.slow
def test_the_lrcn_rival_is_the_model_of_the_config():
    model = lrcn.lrcn_rgb().eval()
    plain = lrcn.plain_like(model).eval()
    frames, labels = lrcn.clip(2)
    with torch.inference_mode():
        torch.testing.assert_close(plain(model.preprocess(frames))[0], model(frames)[0])
        rival = streaming.plain_stream(model)
        stream = Predictor(model, range(lrcn.CLASSES)).stream()
        for frame in frames[0]:
            torch.testing.assert_close(rival(frame), stream(frame))
    lrcn.passes(model, frames[:, :1], labels[:, :1])["forward + backward"]()
    assert all(p.grad is None for p in model.parameters())


def test_the_rivals_of_tcn_are_the_same_networks(capsys):
    stage = TCN(5, (4, 4), block="dilated_residual", causal=False)
    fcn = TCN(5, (4, 6), (8, 5), block="conv", causal=False, norm="batch")
    x = torch.randn(2, 9, 5)
    for net, plain in ((stage, tcn.plain_stage(stage)), (fcn, tcn.plain_fcn(fcn))):
        torch.testing.assert_close(plain(x.mT).mT, net(x)[0])
    tcn.tcn(B=2, T=8, pairs=1)
    assert capsys.readouterr().out.count("ratio") == 6


@pytest.mark.slow
@pytest.mark.parametrize("form", ["cells", "float"])
def test_rivals_of_a_stream_give_its_probabilities(form):
    if form != "cells" and importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("ONNX Runtime is not installed")
    torch.manual_seed(0)
    model = streaming.reference_model()
    rival = streaming.loop_of_cells(model) if form == "cells" else streaming.in_onnx_runtime(model, (28,), form)
    stream = Predictor(model, range(10)).stream()
    for frame in torch.randint(0, 256, (7, 28), dtype=torch.uint8):
        ours, theirs = stream(frame), torch.as_tensor(rival(frame))
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_a_stream_is_measured_at_both_ends(capsys):
    streaming.flat("identity", lambda frame: frame, (2,), 50, 10)
    assert "first 10 " in capsys.readouterr().out


def test_live_video_is_measured(capsys):
    streaming.live(30)
    assert "30 frames, 0 dropped" in capsys.readouterr().out


@pytest.mark.parametrize("part", [lstm.step, lstm.resets, lstm.wide])
def test_lstm_benchmarks_run(part, monkeypatch, capsys):
    small = {"B": 2, "T": 3, "D": 4, "H": 5, "layers": 2}
    monkeypatch.setattr(lstm, "REFERENCE", small)
    monkeypatch.setattr(lstm, "SHAPES", [tuple(small.values())])
    monkeypatch.setattr(lstm, "compare", partial(timing.compare, pairs=1, warm=0))
    part()
    assert "ratio" in capsys.readouterr().out


def test_the_memory_of_a_process_excludes_that_of_its_parent():
    held = np.ones(25_000_000)  # 200 MB, which a forked process starts with
    small = timing.peak_memory("x = b'1'")
    large = timing.peak_memory("x = b'1' * 150_000_000")
    assert small < 50 < 150 < large < 200 < held.nbytes / 1e6 + 1


def test_steps_per_second_come_from_the_tensorboard_times(tmp_path):
    settings = ["data.source=digits", "steps=4", "log_every=1"]
    train(load_experiment("mnist_lastframe", settings), tmp_path / "run", "cpu")
    points = processes.curve(str(tmp_path / "run"), "train/loss")
    assert [point.step for point in points] == [1, 2, 3, 4]
    seconds = points[-1].wall_time - points[0].wall_time
    assert processes.steps_per_second(str(tmp_path / "run")) == pytest.approx(3 / seconds)


def test_the_gpu_benchmark_is_skipped_without_a_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.gpu("data", 1, 1)
    assert "no CUDA device" in capsys.readouterr().out


def test_device_time_is_the_sum_of_device_events(tmp_path):
    events = [{"cat": "kernel", "dur": 1500}, {"cat": "gpu_memcpy", "dur": 500}, {"cat": "cpu_op", "dur": 9}, {}]
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": events}))
    assert gpu.device_ms(tmp_path / "trace.json") == 2.0


def test_video_files_and_frames_in_memory_give_equal_batch_shapes(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "VIDEOS", 9)
    monkeypatch.setattr(gpu, "FRAMES", 20)
    gpu.write_videos(str(tmp_path))
    for data in (gpu.files_of(str(tmp_path), 64), gpu.frames_on_device(64)):
        batch = data.train.batch(data.train.order(4, 0, 0))
        assert batch.frames.shape == (4, 16, 3, 64, 64)
        assert batch.frames.dtype == torch.uint8
        assert data.num_classes == 9


def test_the_rule_for_ragged_batches_is_fitted_to_the_times(capsys, monkeypatch):
    for fused, chosen in (("0", "padded"), ("1", "fused")):
        monkeypatch.setenv("SEQCLF_FUSED", fused)
        ragged.ragged(((2, 5, 3, 4, 0.6),), repeats=1)
        out = capsys.readouterr().out
        assert f"chosen {chosen}" in out and "SLOWER" in out
    narrow = ([20] * 8, 100, {"padded": 1.0, "packed": 5.0})
    wide = ([20] + [4] * 7, 10**6, {"padded": 4.0, "packed": 1.0})
    slower, overhead = ragged.fit([narrow, wide])
    for counts, products, times in (narrow, wide):
        wins = (len(counts) - slower * sum(counts) / max(counts)) * products < overhead
        assert wins == (times["padded"] < times["packed"])
