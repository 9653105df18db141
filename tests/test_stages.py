"""Refinement stages: what they read, deep supervision, and refusals. Their laws are in test_temporal_models.py."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from temporal_models import STAGE, close
from torch import nn

from seqclf import (
    LSTM,
    TCN,
    Clips,
    Data,
    Experiment,
    FrameSequenceClassifier,
    Identity,
    SeqclfError,
    caffe,
    labelling,
    load,
)
from seqclf.experiment.config import build_model
from seqclf.losses import cross_entropy
from seqclf.models import require_streaming
from seqclf.training.loop import train

K = 3


def clips() -> Data:
    g = torch.Generator().manual_seed(0)
    frames, labels = torch.randn(6, 9, 5, generator=g), torch.arange(6) % K
    part = Clips(frames, labels, torch.arange(6) + 4, labelling.every_frame)
    return Data(part, part, ["a", "b", "c"], "noise")


def experiment(causal: bool = True, **settings) -> Experiment:
    stage = partial(STAGE, causal=causal)
    model = partial(FrameSequenceClassifier, temporal=stage, refine=[stage, stage], activation=torch.sigmoid)
    return Experiment(clips, model, partial(torch.optim.SGD, lr=0.5), steps=1, batch_size=6, log_every=1, **settings)


@pytest.fixture
def trained(tmp_path):
    """Trains for a step; returns the experiment and its run."""

    def call(**settings):
        train(experiment(**settings), tmp_path / "run", "cpu")
        return experiment(**settings), tmp_path / "run"

    return call


@pytest.mark.parametrize("activation", [lambda x: x.softmax(-1), torch.sigmoid])
def test_each_stage_reads_the_activation_of_the_stage_before(activation):
    torch.manual_seed(0)
    net = FrameSequenceClassifier(
        temporal=partial(LSTM, hidden=4), refine=[STAGE, STAGE], activation=activation, frame_shape=(5,), num_classes=K
    )
    x = torch.randn(2, 7, 5)
    stages, _ = net.forward_stages(x)
    close(stages[0], net.head(net.temporal(x)[0]))
    for before, after, stage in zip(stages[:-1], stages[1:], net.refine, strict=True):
        close(after, stage.head(stage.temporal(activation(before))[0]))
    close(net(x)[0], stages[-1])


@pytest.mark.parametrize("parts", [1, 2])
def test_training_adds_the_losses_of_all_stages(parts, trained):
    """The first step against one by hand: loss and weights."""
    config, run = trained(accumulate=parts)
    model, batch = build_model(config, clips()), clips().train.batch(torch.arange(6))
    stages, _ = model.forward_stages(batch.frames, None, None, batch.lengths)
    loss = sum(cross_entropy(logits, batch.labels) for logits in stages)
    loss.backward()
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(loss.item(), abs=1e-5)
    weights = torch.load(run / "checkpoints" / "step_1.pt", weights_only=True)["model"]
    for name, p in model.named_parameters():
        close(weights[name], p - 0.5 * p.grad)
    assert [stage.activation for stage in load(run).model.refine] == [torch.sigmoid] * 2


def test_a_run_that_is_not_causal_is_not_streamed(trained, tool, tmp_path):
    _, run = trained(causal=False)
    np.save(tmp_path / "clip.npy", np.zeros((4, 5), "float32"))
    code, _, errors = tool("stream", run, tmp_path / "clip.npy", "--device", "cpu")
    assert code == 2 and "TCN" in errors and "causal" in errors and "Traceback" not in errors
    with pytest.raises(SeqclfError, match=r"truncate=4 .*TCN.*causal"):
        train(experiment(causal=False, truncate=4), tmp_path / "other", "cpu")


def test_a_stage_that_cannot_stream_is_named():
    build = partial(FrameSequenceClassifier, frame_shape=(5,), num_classes=K)
    net = build(temporal=STAGE, refine=[partial(TCN, causal=False)])
    assert not (net.streams or net.causal or net.carries_state)
    with pytest.raises(SeqclfError, match=r"TCN.*causal"):
        require_streaming(net, "a stream")
    net = build(temporal=STAGE, refine=[STAGE])
    x = torch.zeros(1, 2, 5)
    with pytest.raises(SeqclfError, match=r"6 tensors.* 3"):
        net(x, state=net(x)[1][:3])


def test_stages_need_a_head_that_can_be_built():
    for arguments in ({"head": nn.Linear(6, K), "num_classes": K}, {}):
        with pytest.raises(SeqclfError, match=r"refine=.*head=|num_classes="):
            FrameSequenceClassifier(temporal=STAGE, refine=[STAGE], frame_shape=(5,), **arguments)


def test_stages_are_not_converted_to_caffe():
    net = FrameSequenceClassifier(temporal=partial(LSTM, hidden=4), refine=[Identity], frame_shape=(5,), num_classes=K)
    with pytest.raises(SeqclfError, match="refine"):
        caffe.from_classifier(net)
