"""Solvers and learning rates equal Caffe's, and solvers keep the laws of PyTorch optimizers.

``caffe_solvers.npz`` holds 35 training runs of BVLC Caffe and of lisa-caffe (their names begin with lisa): an MLP
6 -> 10 -> ReLU -> 4 on batches of 8, biases at twice the rate and without decay. ``cases`` is JSON: for each run its
solver's prototxt, and where its arrays are (those that many runs share are kept once): the batches, ``init.*`` and
``iterK.*`` weights, ``lr_*``, ``loss``, ``clipped_from_l2norm`` (-1 where not clipped) and the history at iteration 10.
"""

import copy
import io
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqclf import LSTM, Clips, Data, Experiment, FrameSequenceClassifier
from seqclf.caffe import policies
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.policies import Policy, policy
from seqclf.caffe.solvers import update_rules
from seqclf.caffe.solvers.update_rules import SGD, AdaDelta, AdaGrad, Adam, Nesterov, RMSProp, class_for, from_solver
from seqclf.training.loop import train

RUNS = dict(np.load(Path(__file__).with_name("caffe_solvers.npz")))
CASES = json.loads(str(RUNS["cases"]))
NAMES = ("ip1.0", "ip1.1", "ip2.0", "ip2.1")
OPTIMIZERS = {
    "SGD": partial(SGD, lr=0.1, momentum=0.9),
    "Nesterov": partial(Nesterov, lr=0.1, momentum=0.9),
    "AdaGrad": partial(AdaGrad, lr=0.1),
    "RMSProp": partial(RMSProp, lr=0.01, rms_decay=0.9),
    "AdaDelta": partial(AdaDelta, lr=1.0, momentum=0.95, delta=1e-6),
    "Adam": partial(Adam, lr=0.01, momentum=0.9),
}
every_optimizer = pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)


class Run:
    """A run that Caffe recorded, and the same net with our optimizer."""

    def __init__(self, name: str) -> None:
        self.case = CASES[name]
        self.flavour = "lisa" if name.startswith("lisa") else "bvlc"
        self.param = solver(self.case["solver"], self.flavour)
        if self.param.HasField("solver_type"):  # lisa-caffe's field
            self.param.type = {c.__name__.upper(): c.__name__ for c in update_rules.OPTIMIZERS.values()}[
                self.param.DESCRIPTOR.fields_by_name["solver_type"].enum_type.values[self.param.solver_type].name
            ]
        self.net = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))
        groups = [{"params": [p], **mults(p)} for p in self.net.parameters()]
        self.optimizer = from_solver(self.param, groups, self.flavour)
        self.rate = policy(self.param)
        self.load("init")

    def __getitem__(self, name: str) -> np.ndarray:
        return RUNS[self.case["arrays"][name]]

    def load(self, when: str) -> None:
        with torch.no_grad():
            for p, name in zip(self.net.parameters(), NAMES, strict=True):
                p.copy_(torch.from_numpy(self[f"{when}.{name}"]))

    def train(self, start: int, stop: int) -> None:
        """Runs some iterations and compares losses, norms, rates and weights with Caffe's."""
        size = self.param.iter_size
        for iteration in range(start, stop):
            self.optimizer.zero_grad()
            loss = 0.0
            for data, label in zip(*(self[k][iteration * size :][:size] for k in ("data", "label")), strict=True):
                part = F.cross_entropy(self.net(torch.from_numpy(data)), torch.from_numpy(label).long())
                part.backward()
                loss += part.item() / size
            assert loss == pytest.approx(self["loss"][iteration], rel=1e-5), f"loss of iteration {iteration}"
            if "clipped_from_l2norm" in self.case["arrays"]:
                theirs = self["clipped_from_l2norm"][iteration]
                norm = nn.utils.get_total_norm([p.grad for p in self.net.parameters()]).item()
                assert norm == pytest.approx(theirs, rel=1e-5) if theirs >= 0 else norm <= self.param.clip_gradients
            rate = self.rate(iteration)
            assert f"{rate:.6g}" == f"{self['lr_logged'][iteration]:.6g}"
            assert rate == pytest.approx(self["lr_formula"][iteration], rel=1e-6)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            if f"iter{iteration + 1}.ip1.0" in self.case["arrays"]:
                for p, name in zip(self.net.parameters(), NAMES, strict=True):
                    close(p, self[f"iter{iteration + 1}.{name}"], f"{name} after {iteration + 1}")


def solver(text: str, flavour: str = "bvlc"):
    return text_format.Parse(text, schema(flavour).SolverParameter())


def mults(p: torch.Tensor) -> dict[str, float]:
    return {"lr_mult": 2.0, "decay_mult": 0.0} if p.ndim == 1 else {}


def close(ours: torch.Tensor, theirs: np.ndarray, what: str) -> None:
    assert ours.shape == theirs.shape
    error = np.abs(ours.detach().numpy().astype(np.float64) - theirs).max() / np.abs(theirs).max()
    assert error < 1e-5, f"{what}: relative error {error:.1e}"


def weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in ((3, 4), (3,), (2, 3), (1,))
    ]


def walk(optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    """Makes steps whose gradients depend on the weights and the step."""
    for i in range(start, start + steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.sin(3 * p.detach() + i)
        optimizer.step()


@pytest.mark.parametrize("name", CASES)
def test_thirty_iterations_equal_caffe(name):
    Run(name).train(0, 30)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "current_step" in case])
def test_resuming_from_a_solverstate_equals_caffe(name):
    before = Run(name)
    before.train(0, 10)
    for i, tensor in enumerate(before.optimizer.history()):
        close(tensor, before[f"history10.{i}"], f"history {i}")
    assert before.optimizer.iteration == 10
    assert before.rate.current_step == before.case["current_step"]

    after = Run(name)
    after.load("iter10")
    history = [torch.from_numpy(after[f"history10.{i}"]) for i in range(len(after.optimizer.history()))]
    after.optimizer.load_history(history, 10)
    after.rate.current_step = after.case["current_step"]
    after.train(10, 30)


def numpy_step(kind, w, g, h, k, t, s, mult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The update of one parameter in float64, from a clipped gradient ``g``."""
    rate, decay = s["lr"] * mult[0], s["weight_decay"] * mult[1]
    if s["flavour"] == "lisa":
        decay /= s["iter_size"]
    g = g / s["iter_size"] + decay * (w if s["regularization_type"] == "L2" else np.sign(w))
    a, b, delta = s["momentum"], s["other"], s["delta"]
    if kind == "SGD":
        h = a * h + rate * g
        return w - h, h, k
    if kind == "Nesterov":
        new = a * h + rate * g
        return w - (1 + a) * new + a * h, new, k
    if kind in ("AdaGrad", "RMSProp"):
        h = h + g**2 if kind == "AdaGrad" else b * h + (1 - b) * g**2
        return w - rate * g / (np.sqrt(h) + delta), h, k
    if kind == "AdaDelta":
        h = a * h + (1 - a) * g**2
        u = g * np.sqrt((k + delta) / (h + delta))
        return w - rate * u, h, a * k + (1 - a) * u**2
    h, k = a * h + (1 - a) * g, b * k + (1 - b) * g**2
    return w - rate * np.sqrt(1 - b**t) / (1 - a**t) * h / (np.sqrt(k) + delta), h, k


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(list(OPTIMIZERS)),
    lr=st.floats(1e-4, 0.5),
    momentum=st.floats(0, 0.99),
    other=st.floats(0, 0.999),
    weight_decay=st.just(0.0) | st.floats(1e-4, 0.1),
    regularization_type=st.sampled_from(["L2", "L1"]),
    clip=st.none() | st.floats(0, 10),
    iter_size=st.integers(1, 4),
    flavour=st.sampled_from(["bvlc", "lisa"]),
    delta=st.floats(1e-6, 1e-2),
    mult=st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from([0.0, 1.0, 0.5])), min_size=4, max_size=4
    ),
)
def test_every_setting_equals_a_numpy_implementation(kind, mult, clip, **s):
    if kind != "SGD" and s["iter_size"] > 1:
        s["flavour"] = "bvlc"
    ours = weights(torch.float64)
    groups = [{"params": [p], "lr_mult": a, "decay_mult": b} for p, (a, b) in zip(ours, mult, strict=True)]
    names = {"momentum": "momentum", "delta": "delta", "rms_decay": "other", "momentum2": "other"}
    own = {name: s[names[name]] for name in class_for(kind).own}
    common = {name: s[name] for name in ("lr", "weight_decay", "regularization_type", "iter_size", "flavour")}
    optimizer = class_for(kind)(groups, clip_gradients=clip, **common, **own)
    w = [p.detach().numpy().copy() for p in ours]
    h, k = [np.zeros_like(x) for x in w], [np.zeros_like(x) for x in w]
    for t in range(1, 5):
        for p in ours:
            p.grad = torch.cos(2 * p.detach() + t) * s["iter_size"]
        g = [p.grad.numpy().copy() for p in ours]
        norm = math.sqrt(sum((x**2).sum() for x in g))
        g = [x * clip / norm for x in g] if clip is not None and norm > clip else g
        optimizer.step()
        for i, p in enumerate(ours):
            w[i], h[i], k[i] = numpy_step(kind, w[i], g[i], h[i], k[i], t, s, mult[i])
            np.testing.assert_allclose(p.detach().numpy(), w[i], rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(optimizer.history(), [*h, *k][: len(optimizer.history())], strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-9, atol=1e-9)


def test_scalars_are_float32_before_they_are_multiplied():
    f32, lr, mult = np.float32, 0.013, 1.7
    assert f32(lr * mult) != f32(lr) * f32(mult), "or this would test nothing"
    p = nn.Parameter(torch.linspace(-1, 1, 101))
    optimizer = SGD([{"params": [p], "lr_mult": mult}], lr=lr)
    w, g = p.detach().numpy().copy(), np.cos(np.arange(101)).astype(f32)
    p.grad = torch.from_numpy(g)
    optimizer.step()
    np.testing.assert_array_equal(p.detach().numpy(), w - (f32(lr) * f32(mult)) * g)


@every_optimizer
def test_resumed_is_uninterrupted_bit_for_bit(build):
    whole, first, second = weights(), weights(), weights()
    walk(build(whole, weight_decay=0.01, clip_gradients=1.0), 7)
    optimizer = build(first, weight_decay=0.01, clip_gradients=1.0)
    walk(optimizer, 4)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        for p, q in zip(second, first, strict=True):
            p.copy_(q)
    resumed = build(second, weight_decay=0.01, clip_gradients=1.0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    walk(resumed, 3, start=4)
    copied = copy.deepcopy(optimizer)  # with copies of the weights
    walk(copied, 3, start=4)
    optimizer.load_history([x.clone() for x in optimizer.history()], optimizer.iteration)
    walk(optimizer, 3, start=4)
    for continued in (second, copied.param_groups[0]["params"], first):
        for p, q in zip(continued, whole, strict=True):
            assert torch.equal(p, q)
    assert resumed.iteration == copied.iteration == optimizer.iteration == 7


@every_optimizer
def test_how_parameters_are_grouped_changes_nothing_but_the_order_of_history(build):
    one, each, turned = weights(), weights(), weights()
    walk(build(one, clip_gradients=0.5), 3)
    a = build([{"params": [p]} for p in each], clip_gradients=0.5)
    walk(a, 3)
    b = build([{"params": turned[2:]}, {"params": turned[:2]}], clip_gradients=0.5)
    walk(b, 3)
    for p, q, r in zip(one, each, turned, strict=True):
        assert torch.equal(p, q)
        torch.testing.assert_close(p, r, rtol=1e-6, atol=1e-7)  # the norm is summed in another order
    count = len(a.histories)
    assert [tuple(x.shape) for x in a.history()] == [tuple(p.shape) for p in one] * count
    assert [tuple(x.shape) for x in b.history()] == [tuple(p.shape) for p in (*one[2:], *one[:2])] * count


@every_optimizer
def test_a_missing_gradient_counts_as_zero_and_gradients_are_unchanged(build):
    without, zero = weights(), weights()
    a, b = (build(w, weight_decay=0.1, clip_gradients=0.5, iter_size=2) for w in (without, zero))
    for optimizer in (a, b):
        walk(optimizer, 2)
    without[0].grad, zero[0].grad = None, torch.zeros_like(zero[0])
    before = [p.grad.clone() for p in zero]
    a.step()
    b.step()
    for p, q, g in zip(without, zero, before, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(q.grad, g)
    assert without[0].grad is None


@every_optimizer
def test_parameters_that_need_no_gradient_are_unchanged(build):
    ours = weights()
    ours[0].requires_grad_(False)
    before = ours[0].clone()
    optimizer = build(ours, weight_decay=0.1)
    for p in ours[1:]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.equal(ours[0], before)
    assert not optimizer.history()[0].any()


def test_a_parameter_under_two_names_is_updated_once():
    shared, other = weights()[:2]
    groups = [{"params": [shared, shared]}, {"params": [other]}, {"params": [shared], "lr_mult": 5.0}]
    optimizer = from_solver(solver("base_lr: 0.5"), groups)
    before = shared.detach().clone()
    shared.grad, other.grad = torch.ones_like(shared), torch.ones_like(other)
    optimizer.step()
    assert torch.equal(shared, before - 0.5)
    assert len(optimizer.history()) == 2


def test_parameters_of_several_types_train_together():
    ours = [nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.float32, torch.float64)]
    optimizer = SGD(ours, lr=0.1, clip_gradients=1.0)
    walk(optimizer, 1)
    assert ours[0].detach().numpy() == pytest.approx(ours[1].detach().numpy(), rel=1e-6)


def test_clipping_does_not_hide_infinite_gradients():
    ours = weights()
    optimizer = SGD(ours, lr=0.1, clip_gradients=1.0)
    for p in ours:
        p.grad = torch.full_like(p, math.nan)
    optimizer.step()
    assert all(p.isnan().all() for p in ours)


def test_step_returns_the_loss_of_a_closure():
    p = nn.Parameter(torch.tensor([3.0]))
    optimizer = SGD([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9
    assert p.item() == 0


def test_a_config_can_use_caffes_optimizer_and_schedule(tmp_path):
    experiment = Experiment(
        data=noise,
        model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=4)),
        optimizer=partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.005),
        schedule=partial(policies.step, gamma=0.1, stepsize=2),
        steps=5,
        batch_size=4,
        log_every=1,
    )
    train(experiment, tmp_path / "run", "cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [x["lr"] for x in lines if x["part"] == "train"] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def noise() -> Data:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (20, 3, 4), generator=generator, dtype=torch.uint8)
    clips = Clips(frames, torch.randint(0, 2, (20,), generator=generator))
    return Data(clips, clips, ("no", "yes"), "noise")


# ---- rates


def literal_multistep(stepvalue: list[int], iterations: int) -> list[int]:
    """current_step as Caffe counts it: it increases by at most one per iteration."""
    counts, count = [], 0
    for iteration in range(iterations):
        if count < len(stepvalue) and iteration >= stepvalue[count]:
            count += 1
        counts.append(count)
    return counts


@settings(max_examples=100, deadline=None)
@given(stepvalue=st.lists(st.integers(0, 30), min_size=1, max_size=6), restart=st.integers(0, 40))
def test_multistep_counts_as_caffe_does_from_any_restart(stepvalue, restart):
    param = solver('base_lr: 1 lr_policy: "multistep" gamma: 0.5')
    param.stepvalue.extend(stepvalue)
    counts = literal_multistep(stepvalue, 50)
    assert [policies.multistep(i, 50, 0.5, stepvalue) for i in range(50)] == [0.5**n for n in counts]
    whole, again = policy(param), policy(param)
    for i in range(50):
        if i == restart:
            again.current_step = whole.current_step
        assert whole(i) == 0.5 ** counts[i]
        assert whole.current_step == counts[i]
        if i >= restart:
            assert again(i) == 0.5 ** counts[i]


def test_current_step_of_the_step_policy_is_that_of_the_last_update():
    rate = policy(solver('base_lr: 1 lr_policy: "step" gamma: 0.5 stepsize: 10'))
    for iteration, count in [(0, 0), (9, 0), (10, 1), (19, 1), (20, 2)]:
        rate(iteration)
        assert rate.current_step == count


def test_policies_without_steps_keep_a_restored_current_step():
    rate = policy(solver('base_lr: 1 lr_policy: "fixed"'))
    rate.current_step = 3
    rate(20)
    assert rate.current_step == 3


@pytest.mark.parametrize(
    "text",
    [
        'base_lr: 0.013 lr_policy: "fixed"',
        'base_lr: 0.013 lr_policy: "step" gamma: 0.3 stepsize: 7',
        'base_lr: 0.013 lr_policy: "exp" gamma: 0.93',
        'base_lr: 0.013 lr_policy: "inv" gamma: 0.05 power: 0.75',
        'base_lr: 0.013 lr_policy: "multistep" gamma: 0.3 stepvalue: 4 stepvalue: 9',
        'base_lr: 0.013 lr_policy: "poly" power: 1.5 max_iter: 40',
        'base_lr: 0.013 lr_policy: "sigmoid" gamma: 0.4 stepsize: 15',
    ],
)
def test_a_schedule_equals_the_policy_divided_by_the_base_rate(text):
    param = solver(text)
    rate = policy(param)
    assert isinstance(rate, Policy)
    function, names = policies.POLICIES[param.lr_policy]
    schedule = partial(function, **{name: getattr(param, name) for name in names})
    for iteration in range(41):
        assert np.float32(rate(iteration)) == rate(iteration), "a float32"
        assert rate(iteration) == pytest.approx(param.base_lr * schedule(iteration, 40), rel=1e-7)


def test_extreme_rates_overflow_as_in_c():
    assert policies.sigmoid(0, 1, gamma=1.0, stepsize=100_000) == 0
    assert policies.sigmoid(10**6, 1, gamma=1.0, stepsize=100_000) == 1
    assert policies.exp(10**6, 1, gamma=2.0) == math.inf
    assert policies.exp(10**6, 1, gamma=0.5) == 0
    assert policies.poly(7, 7, power=-1.0) == math.inf
    assert policies.poly(5, 10, power=2.0) == 0.25  # of the run's own length


# ---- errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base_lr: 1", 'lr_policy ""'),
        ('base_lr: 1 lr_policy: "cosine"', '"cosine"'),
        ('lr_policy: "fixed"', "base_lr"),
        ('base_lr: 1 lr_policy: "step"', "gamma and stepsize"),
        ('base_lr: 1 lr_policy: "step" gamma: 0.1', "stepsize"),
        ('base_lr: 1 lr_policy: "step" gamma: 0.1 stepsize: 0', "stepsize 0"),
        ('base_lr: 1 lr_policy: "exp" gamma: -1', "gamma -1.0"),
        ('base_lr: 1 lr_policy: "inv" gamma: 0.1', "power"),
        ('base_lr: 1 lr_policy: "multistep" gamma: 0.1', "stepvalue"),
        ('base_lr: 1 lr_policy: "poly" power: 1', "max_iter"),
        ('base_lr: 1 lr_policy: "poly" power: 1 max_iter: 0', "max_iter 0"),
        ('base_lr: 1 lr_policy: "sigmoid" gamma: 1 stepsize: -5', "stepsize -5"),
    ],
)
def test_invalid_policies_are_refused(text, message):
    with pytest.raises(CaffeFormatError, match=message):
        policy(solver(text))


def test_poly_is_refused_beyond_max_iter():
    with pytest.raises(CaffeFormatError, match=r"41.*40"):
        policy(solver('base_lr: 1 lr_policy: "poly" power: 1 max_iter: 40'))(41)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "Ftrl" base_lr: 1', '"Ftrl"'),
        ('type: "SGD"', "base_lr"),
        ('type: "AdaGrad" base_lr: 1 momentum: 0.5', "momentum 0.5: AdaGrad"),
        ('type: "RMSProp" base_lr: 1 momentum: 0.5', "momentum 0.5: RMSProp"),
        ('type: "RMSProp" base_lr: 1 rms_decay: 1', "rms_decay 1.0: RMSProp"),
        ('type: "RMSProp" base_lr: 1 rms_decay: -0.5', "rms_decay -0.5"),
        ('type: "Adam" base_lr: 1 momentum: 1', "momentum 1.0: Adam"),
        ("base_lr: 1 iter_size: 0", "iter_size 0"),
        ('base_lr: 1 regularization_type: "L3"', '"L3"'),
        ("base_lr: -1", "lr -1.0"),
    ],
)
def test_solvers_that_caffe_refuses_are_refused(text, message):
    with pytest.raises(CaffeFormatError, match=message):
        from_solver(solver(text), [{"params": weights()}])


def test_settings_of_other_solvers_have_no_effect_as_in_caffe():
    optimizer = from_solver(solver("base_lr: 1 momentum2: 0.5 delta: 3 clip_gradients: -1"), [{"params": weights()}])
    assert optimizer.param_groups[0]["clip_gradients"] is None
    assert "delta" not in optimizer.param_groups[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": math.nan}, "lr nan"),
        ({"clip_gradients": -1.0}, "clip_gradients -1.0"),
        ({"momentum": -0.1}, "momentum -0.1"),
        ({"flavour": "nvidia"}, "flavour='nvidia'"),
    ],
)
def test_invalid_values_are_refused(settings, message):
    with pytest.raises(CaffeFormatError, match=message):
        SGD(weights(), **{"lr": 0.1, **settings})


def test_iter_size_in_lisa_is_refused_for_solvers_other_than_sgd():
    with pytest.raises(CaffeFormatError, match=r"iter_size 2.*Nesterov"):
        Nesterov(weights(), lr=0.1, iter_size=2, flavour="lisa")


def test_unknown_or_misplaced_group_settings_are_refused():
    a, b, *_ = weights()
    with pytest.raises(CaffeFormatError, match="lr_mul"):
        SGD([{"params": [a], "lr_mul": 2.0}], lr=0.1)
    with pytest.raises(CaffeFormatError, match="clip_gradients"):
        SGD([{"params": [a], "clip_gradients": 1.0}, {"params": [b]}], lr=0.1)


def test_a_group_added_later_is_clipped_with_the_others():
    a, b, *_ = weights()
    optimizer = SGD([a], lr=0.1)
    walk(optimizer, 3)
    optimizer.add_param_group({"params": [b]})
    assert optimizer.param_groups[1]["iteration"] == 3


def test_an_invalid_history_is_refused_and_changes_nothing():
    optimizer = OPTIMIZERS["Adam"](weights())
    walk(optimizer, 2)
    before = [x.clone() for x in optimizer.history()]
    with pytest.raises(CaffeFormatError, match=r"4 blobs: Adam .*8"):
        optimizer.load_history(before[:4], 7)
    wrong = [torch.zeros_like(x) for x in before]
    wrong[6] = torch.zeros(6)
    with pytest.raises(CaffeFormatError, match=r"blob 6 .*\(6,\)"):
        optimizer.load_history(wrong, 7)
    assert all(map(torch.equal, optimizer.history(), before))
    assert optimizer.iteration == 2


def test_sparse_gradients_are_refused():
    net = nn.Embedding(5, 2, sparse=True)
    net(torch.tensor([1])).sum().backward()
    with pytest.raises(CaffeFormatError, match=r"sparse gradient.*\(5, 2\)"):
        SGD(net.parameters(), lr=0.1).step()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@every_optimizer
def test_gpu_steps_do_not_synchronize_and_equal_the_cpu(build):
    cpu, gpu = weights(), [nn.Parameter(p.detach().cuda()) for p in weights()]
    walk(build(cpu, weight_decay=0.01, clip_gradients=0.5, iter_size=2), 5)
    optimizer = build(gpu, weight_decay=0.01, clip_gradients=0.5, iter_size=2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        walk(optimizer, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for p, q in zip(cpu, gpu, strict=True):
        torch.testing.assert_close(q.cpu(), p, rtol=1e-5, atol=1e-6)
