"""Configs load, change by name, and are written as Python that loads again."""

import inspect
import re
import shutil
import sys
import types
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import seqclf
from seqclf import GRU, LSTM, Experiment, FrameSequenceClassifier, SeqclfError, mnist, transforms
from seqclf.data.recipe import from_recipe, to_recipe
from seqclf.experiment.find_config import find_config
from seqclf.experiment.fingerprint import changed_settings, resume_fingerprint
from seqclf.experiment.loading import load_experiment
from seqclf.experiment.rendering import render
from seqclf.experiment.schedules import constant, one_cycle, warmup_cosine
from seqclf.experiment.settings import change, settings_of
from seqclf.training.loop import train

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = sorted(set(FOLDER.glob("mnist_*.py")) - {FOLDER / "mnist_tcn.py"})
# test_results_configs and test_video_configs have the others
LASTFRAME, PERFRAME = (p for p in CONFIGS if p.stem in ("mnist_lastframe", "mnist_perframe"))
SMALL = ("steps=2", "batch_size=4", "data.source=digits", "model.temporal.hidden=8")
all_configs = pytest.mark.parametrize("config", CONFIGS, ids=lambda p: p.stem)

FOREIGN = '''"""A config with its own class and a neighbour that it imports."""
from functools import partial
import torch
from torch import nn
import neighbour
from neighbour import dim
from seqclf import LSTM, Experiment, FrameSequenceClassifier, mnist

class Halved(nn.Module):
    def __init__(self, frame_shape, by=neighbour.HALF):
        super().__init__()
        self.out_features, self.by = frame_shape[0] // by, by
    def forward(self, frames):
        return frames[:, :: self.by]

def get_config():
    return Experiment(
        data=partial(mnist, source="digits"),
        model=partial(FrameSequenceClassifier, encoder=Halved, temporal=partial(LSTM, hidden=8)),
        optimizer=partial(torch.optim.SGD, lr=0.1), augment=dim, steps=2, batch_size=4)
'''
NEIGHBOUR = "HALF = 2\n\ndef dim(frames, generator):\n    return frames // HALF\n"


EXAMPLE = Experiment(
    data=partial(mnist, axis="rows", labelling=seqclf.labelling.last_frame),
    model=partial(
        FrameSequenceClassifier,
        preprocess=partial(seqclf.Normalize, mean=0.1307, std=0.3081),
        temporal=partial(LSTM, hidden=100, layers=3, forget_bias=1.0, init=seqclf.orthogonal),
    ),
    optimizer=partial(torch.optim.Adam, lr=4e-3),
    schedule=partial(one_cycle, warmup=0.3),
    steps=3000,
    batch_size=64,
)


def again(text: str) -> Experiment:
    """The experiment of a rendered config."""
    namespace = {}
    exec(compile(text, "rendered", "exec"), namespace)
    return namespace["get_config"]()


def plain(value):
    """An experiment or a part of it as plain values, which compare deeply (partials compare by identity)."""
    if isinstance(value, partial):
        return ("partial", value.func, [plain(a) for a in value.args], {k: plain(v) for k, v in value.keywords.items()})
    if isinstance(value, Experiment):
        return {name: plain(now) for name, (_, now) in settings_of(value).items()}
    return (type(value), value)


def test_none_and_true_are_strings_where_the_setting_is_a_string():
    def encoder(weights: str | None = None, frozen: str = "all", name: str = "a", wide: bool = False) -> None: ...

    for raw, setting, expected in (
        ("none", "frozen", "none"),
        ("none", "weights", None),
        ("None", "frozen", "None"),
        ("true", "name", "true"),
        ("true", "wide", True),
    ):
        changed = change(replace(EXAMPLE, model=encoder), f"model.{setting}={raw}")
        assert changed.model.keywords == {setting: expected}
    with pytest.raises(SeqclfError, match=r"model\.wide=none"):
        change(replace(EXAMPLE, model=encoder), "model.wide=none")


def test_the_configs_are_found():
    assert {"mnist_lastframe", "mnist_perframe", "mnist_seed"} <= {p.stem for p in CONFIGS}


@all_configs
def test_every_config_trains_two_steps_and_loads_again(config, tmp_path):
    results = train(load_experiment(config, SMALL), tmp_path / "run", "cpu")
    assert results["step"] == 2
    assert results["parts"]["test"]["clips"] == 359
    predictor = seqclf.load(tmp_path / "run")
    assert predictor(torch.zeros(28, 28, dtype=torch.uint8)).probabilities.shape == (28, 10)


@all_configs
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.temporal.hidden=7", "optimizer.lr=1e-5", "schedule.warmup=0.25", "clip_norm=1", "data.root='a \"b'"),
        ("model.temporal=GRU", "optimizer=torch.optim.AdamW", "optimizer.betas=(0.5, 0.75)", "precision=bf16"),
        ("loss.smoothing=0.1", "model.preprocess.mean=[0.1, 0.2, 0.3]", "validation=0.1", "data.axis=columns"),
    ],
    ids=("as it is", "nested", "swapped", "lists"),
)
def test_a_rendered_experiment_is_python_that_gives_the_same_experiment(config, overrides):
    if "schedule.warmup=0.25" in overrides:
        overrides = ("schedule=warmup_cosine", *overrides)
    experiment = load_experiment(config, overrides)
    text = render(experiment)
    assert render(again(text)) == text
    assert plain(again(text)) == plain(experiment)
    for setting in ("steps=", "batch_size=", "seed=", "precision=", "keep="):
        assert setting in text, "defaults are rendered too"


def test_numpy_numbers_become_those_of_python():
    mean, lr = (np.float32(0.5), 1), np.float64(1e-2)
    model = partial(FrameSequenceClassifier, preprocess=partial(seqclf.Normalize, mean=mean))
    optimizer, metrics = partial(torch.optim.Adam, lr=lr, betas=[0.5, np.float16(0.25)]), {"one": len}
    experiment = Experiment(mnist, model, optimizer, np.int64(3), batch_size=1, seed=np.uint8(4), clip_norm=lr)
    assert plain(experiment) == plain(again(render(experiment)))
    assert {type(value) for value in (experiment.steps, experiment.seed, experiment.optimizer.keywords["lr"])} == {
        int,
        float,
    }
    assert replace(experiment, metrics=metrics).metrics is metrics, "other values are kept"


def test_two_functions_of_one_name_are_imported_under_two_names():
    model = partial(FrameSequenceClassifier, preprocess=nn.Identity, temporal=seqclf.Identity)
    experiment = change(EXAMPLE, "steps=1")
    text = render(Experiment(experiment.data, model, experiment.optimizer, steps=1, batch_size=1))
    found = again(text).model.keywords
    assert (found["preprocess"], found["temporal"]) == (nn.Identity, seqclf.Identity)


@pytest.mark.parametrize(
    "value", [lambda x: x, nn.Linear(1, 1), partial(print, object())], ids=("lambda", "module", "object")
)
def test_a_value_without_a_name_cannot_be_rendered(value):
    experiment = Experiment(EXAMPLE.data, EXAMPLE.model, EXAMPLE.optimizer, steps=1, batch_size=1, augment=value)
    with pytest.raises(SeqclfError, match="a config cannot hold"):
        render(experiment)


def test_perframe_differs_from_lastframe_by_the_labelling_alone():
    texts = [render(load_experiment(config)) for config in (LASTFRAME, PERFRAME)]
    assert texts[0] != texts[1]
    assert texts[0].replace("last_frame", "every_frame") == texts[1]
    assert texts[0].count("labelling=last_frame") == texts[1].count("labelling=every_frame") == 1


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("steps=17", ["steps"], 17),
        ("clip_norm=2", ["clip_norm"], 2.0),
        ("optimizer.lr=0.25", ["optimizer", "lr"], 0.25),
        ("optimizer.amsgrad=true", ["optimizer", "amsgrad"], True),
        ("data.root=/some/where", ["data", "root"], "/some/where"),
        ("data.source=digits", ["data", "source"], "digits"),
        ("model.temporal.hidden=12", ["model", "temporal", "hidden"], 12),
        ("model.temporal.dropout=0.5", ["model", "temporal", "dropout"], 0.5),
        ("model.temporal.forget_bias=None", ["model", "temporal", "forget_bias"], None),
        ("model.preprocess.std=(1.0, 2.0, 3.0)", ["model", "preprocess", "std"], (1.0, 2.0, 3.0)),
        ("schedule.warmup=0", ["schedule", "warmup"], 0.0),
        ("precision=fp16", ["precision"], "fp16"),
        ("data.labelling=every_frame", ["data", "labelling"], seqclf.labelling.every_frame),
        ("model.temporal.init=None", ["model", "temporal", "init"], None),
    ],
)
def test_an_override_changes_one_setting_and_keeps_its_type(override, path, value):
    changed = change(EXAMPLE, override)
    node = changed
    for name in path:
        node = settings_of(node)[name][1]
    assert node == value and type(node) is type(value)
    back = EXAMPLE
    for name in path:
        back = settings_of(back)[name][1]
    for name in settings_of(EXAMPLE):
        if name != path[0]:
            assert getattr(changed, name) is getattr(EXAMPLE, name)
    assert node != back, "the test changes nothing"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("step=5", "'step'.*steps"),
        ("batchsize=5", "batchsize.*batch_size"),
        ("model.temporal.hiden=5", "model.temporal.hiden: .*hidden"),
        ("model.temporal.zzzz=5", "'zzzz'.*hidden, layers"),
        ("optimizer.learning_rate=1", "'learning_rate'"),
        ("optimizer.params=1", "'params'"),
        ("steps.more=1", "steps.more: .* 3000 "),
        ("steps=many", "steps=many: .* 3000 "),
        ("steps=2.5", "steps=2.5"),
        ("steps=True", "steps=True"),
        ("steps=True", "steps=True"),
        ("steps=None", "steps=None"),
        ("steps=", "steps=: "),
        ("steps=0", "steps=0: .* 1"),
        ("clip_norm=0", "clip_norm=0.0: .* 0"),
        ("clip_norm=nan", "clip_norm=nan"),
        ("seed=-1", "seed=-1: .* 0"),
        ("optimizer.lr=fast", "setting optimizer.lr=fast"),
        ("precision=fp8", "precision=fp8: .*fp32, bf16, fp16"),
        ("data.source=minst", "data.source=minst: .*auto, mnist, digits"),
        ("model.temporal=LTSM", "model.temporal=LTSM: .*LSTM"),
        ("optimizer=torch.optim.SGDD", "optimizer=torch.optim.SGDD"),
        ("optimizer=no.such.module", "optimizer=no.such.module"),
        ("model.temporal.dropout=off", "model.temporal.dropout=off"),
        ("steps", "expected key=value"),
        ("=3", "expected key=value"),
    ],
)
def test_a_wrong_override_is_refused_with_suggestions(override, message):
    with pytest.raises(SeqclfError, match=message):
        change(EXAMPLE, override)


@pytest.mark.parametrize(
    "override", ["optimizer.lr=" + "9" * 400, "optimizer=..foo", "optimizer.lr=" + "-" * 100_000 + "1"], ids=range(3)
)
def test_an_override_that_python_cannot_parse_is_refused(override):
    with pytest.raises(SeqclfError, match="setting optimizer"):
        change(EXAMPLE, override)


def test_a_config_that_exits_is_an_error(tmp_path):
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(SeqclfError, match=r"exits\.py.*SystemExit"):
        load_experiment(tmp_path / "exits.py")


def scaled(frames, generator, by: float = 1.0, sizes: tuple[int, ...] = (1, 2)):
    return frames * by


@dataclass(frozen=True)
class Crop:
    size: int = 4

    def __call__(self, frames, generator):
        return frames[..., : self.size]


NESTED = replace(
    EXAMPLE,
    augment=partial(transforms.in_turn, steps=(partial(scaled, by=2.0), Crop(), [partial(scaled), {"inner": scaled}])),
    schedule=partial(warmup_cosine, floor=0.1),
    groups=partial(seqclf.param_groups, rules={"head.*": {"lr": 0.1}, "temporal.*": {"lr": 0.2}}),
)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("augment.steps.0.by=3", ("steps", "0", "by"), 3.0),
        ("augment.steps.0.sizes=(4,5)", ("steps", "0", "sizes"), (4, 5)),
        ("augment.steps.1.size=8", ("steps", "1", "size"), 8),
        ("augment.steps.2.0.by=5", ("steps", "2", "0", "by"), 5.0),
        ("augment.steps.2.1.inner.by=5", ("steps", "2", "1", "inner", "by"), 5.0),
        ("augment.steps.2.1.inner.sizes.1=7", ("steps", "2", "1", "inner", "sizes", "1"), 7),
        ("groups.rules.temporal.*.lr=0.5", ("rules", "temporal.*", "lr"), 0.5),
    ],
)
def test_settings_inside_lists_tuples_mappings_and_objects_change_alone(override, path, value):
    changed = change(NESTED, override)
    part = override.split(".")[0]
    node, before = getattr(changed, part), getattr(NESTED, part)
    for name in path:
        siblings = [settings_of(x) for x in (node, before)]
        for other in siblings[0].keys() - {name}:
            assert siblings[0][other][1] is siblings[1][other][1] or siblings[0][other][1] == siblings[1][other][1]
        node, before = siblings[0][name][1], siblings[1][name][1]
    assert node == value != before and type(node) is type(value)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("augment.steps.3.by=1", "augment.steps .*0 to 2"),
        ("augment.steps.first.by=1", "augment.steps .*0 to 2"),
        ("augment.steps.0.bye=1", "augment.steps.0 .*'bye'.* by"),
        ("augment.steps.0.by=big", "augment.steps.0.by=big"),
        ("augment.steps.1.size.x=1", "augment.steps.1.size.x"),
        ("augment.steps.2.1.outer=1", "outer"),
        ("sources=1", "'sources'"),
    ],
)
def test_a_wrong_nested_override_is_refused_by_name(override, named):
    with pytest.raises(SeqclfError, match=named):
        change(NESTED, override)


def test_a_positional_argument_of_a_partial_changes_by_its_name():
    experiment = replace(EXAMPLE, schedule=partial(scaled_schedule, 2.0, power=3))
    changed = change(experiment, "schedule.factor=4").schedule
    assert changed(0, 10) == 4.0**3 and settings_of(changed)["factor"][1] == 4.0
    assert experiment.schedule(0, 10) == 2.0**3


def scaled_schedule(factor: float, step: int = 0, steps: int = 0, power: int = 1) -> float:
    return factor**power


def test_a_swapped_class_keeps_the_arguments_that_it_takes():
    swapped = change(EXAMPLE, "model.temporal=GRU").model.keywords["temporal"]
    assert swapped.func is GRU
    assert swapped.keywords == {"hidden": 100, "layers": 3, "init": seqclf.orthogonal}  # a GRU has no forget_bias
    swapped = change(change(EXAMPLE, "optimizer.lr=0.5"), "optimizer=torch.optim.SGD").optimizer
    assert swapped.func is torch.optim.SGD and swapped.keywords == {"lr": 0.5}
    assert change(EXAMPLE, "schedule=constant").schedule is constant
    assert change(EXAMPLE, "schedule=warmup_cosine").schedule.func is warmup_cosine
    assert change(EXAMPLE, "schedule=warmup_cosine").schedule.keywords == {"warmup": 0.3}
    assert change(EXAMPLE, "schedule=one_cycle").schedule.func is one_cycle
    assert change(EXAMPLE, "schedule=torch.zeros").schedule is torch.zeros  # has no signature


def test_functions_are_found_beside_the_one_that_they_replace():
    assert change(EXAMPLE, "loss=binary_cross_entropy").loss is seqclf.losses.binary_cross_entropy
    assert change(EXAMPLE, "sampler=balanced").sampler is seqclf.samplers.balanced
    with pytest.raises(SeqclfError, match="did you mean binary_cross_entropy"):
        change(EXAMPLE, "loss=binary_crossentropy")


def test_a_setting_of_several_literals_lists_each_choice_once():
    videos = replace(EXAMPLE, data=partial(seqclf.annotated_set, "r", "t", "t", "s", unit="auto"))
    with pytest.raises(SeqclfError, match=r"data\.unit=second: expected one of frames, seconds, auto "):
        change(videos, "data.unit=second")


def test_the_nearest_config_is_a_reference_config_or_a_file_in_the_folder(tmp_path):
    (tmp_path / "gestures.py").write_text("")
    for wrong in ("gestures", "gesture.py"):
        with pytest.raises(SeqclfError, match=re.escape(f"did you mean {tmp_path / 'gestures.py'}?")):
            find_config(tmp_path / wrong)
    with pytest.raises(SeqclfError, match="did you mean mnist_lastframe"):
        find_config("mnist_lastfram")


def test_an_argument_without_a_default_is_left_to_the_config():
    weighted = change(EXAMPLE, "sampler=weighted")
    for experiment, override in ((weighted, "sampler.weights=(1,2)"), (EXAMPLE, "model.temporal.input_size=3")):
        name = override.partition("=")[0].rpartition(".")[2]
        with pytest.raises(SeqclfError, match=f"'{name}' has no default in .* config"):
            change(experiment, override)


def test_errors_name_functions_without_their_addresses():
    with pytest.raises(SeqclfError, match=r"setting metrics=5: .*<function constant>\} now"):
        change(replace(EXAMPLE, metrics={"own": constant}), "metrics=5")


def test_the_fingerprint_holds_what_a_resumed_run_must_share():
    same = resume_fingerprint(EXAMPLE)
    for override in ("steps=9", "eval_every=9", "log_every=9", "checkpoint_every=9", "keep=9", "data.root=x"):
        assert resume_fingerprint(change(EXAMPLE, override)) == same, override
    for override in ("seed=9", "batch_size=9", "optimizer.lr=0.9", "model.temporal.hidden=9", "data.axis=columns"):
        assert list(changed_settings(same, resume_fingerprint(change(EXAMPLE, override)))) == [override.split("=")[0]]


def test_functions_of_one_name_from_two_modules_have_different_fingerprints():
    one, two = (replace(EXAMPLE, optimizer=partial(o, lr=0.1)) for o in (torch.optim.SGD, seqclf.caffe.SGD))
    assert list(changed_settings(resume_fingerprint(one), resume_fingerprint(two))) == ["optimizer"]


def test_positional_arguments_arrays_and_closures_are_part_of_the_fingerprint():
    def scaled(by):
        return lambda step, steps: by

    pairs = [
        (replace(EXAMPLE, schedule=partial(warmup_cosine, 1)), replace(EXAMPLE, schedule=partial(warmup_cosine, 2))),
        (replace(EXAMPLE, schedule=scaled(1.0)), replace(EXAMPLE, schedule=scaled(2.0))),
        (
            replace(EXAMPLE, data=partial(mnist, torch.zeros(1000))),
            replace(EXAMPLE, data=partial(mnist, torch.eye(1000)[3])),
        ),
    ]
    for one, two in pairs:
        assert len(changed_settings(resume_fingerprint(one), resume_fingerprint(two))) == 1
    one, two = (replace(EXAMPLE, schedule=scaled(1.0)) for _ in range(2))
    assert resume_fingerprint(one) == resume_fingerprint(two)


@pytest.fixture
def foreign(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "halved.py").write_text(FOREIGN)
    (folder / "neighbour.py").write_text(NEIGHBOUR)
    return folder


@pytest.mark.parametrize("name", ["halved", "my-config v1.0", "é²ﬁ"])
def test_a_run_loads_without_the_config_it_was_started_from(foreign, tmp_path, name):
    before = list(sys.path)
    experiment = load_experiment((foreign / "halved.py").rename(foreign / f"{name}.py"))
    run = tmp_path / "run"
    train(experiment, run, "cpu")
    frames = torch.randint(0, 256, (28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first = seqclf.load(run)(frames).probabilities
    shutil.rmtree(foreign)
    run = run.rename(tmp_path / "moved")
    load_experiment(LASTFRAME)  # another config in between, as another process would begin
    for name in [n for n in sys.modules if n == "neighbour" or n.startswith("_config_")]:
        del sys.modules[name]
    predictor = seqclf.load(run)
    assert type(predictor.model.encoder).__name__ == "Halved"
    assert torch.equal(predictor(frames).probabilities, first)
    again = load_experiment(run / "config.py")
    assert again.augment.__name__ == "dim"
    assert render(again) == (run / "config.py").read_text()
    assert resume_fingerprint(again) == resume_fingerprint(experiment)
    assert sys.path == before


def test_loading_a_config_does_not_run_the_getattr_of_other_modules(monkeypatch):
    """PyTorch has modules that import others in it."""
    asked = []

    def make(name):
        asked.append(name)
        raise AttributeError(name)

    lazy = types.ModuleType("lazy")
    lazy.__getattr__, lazy.__file__ = make, None
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    load_experiment(LASTFRAME)
    assert "__config__" not in asked


def test_two_configs_with_neighbours_of_one_name_do_not_mix(foreign, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "halved.py").write_text(FOREIGN)
    (other / "neighbour.py").write_text(NEIGHBOUR.replace("2", "4"))
    sizes = []
    for folder in (foreign, other, foreign):
        model = load_experiment(folder / "halved.py").model(frame_shape=(28,), num_classes=10)
        sizes.append(model.encoder.out_features)
    assert sizes == [14, 7, 14]


NUMBERS = {
    "steps": st.integers(1, 10**30),
    "seed": st.integers(0, 2**63 - 1),
    "model.temporal.hidden": st.integers(-(10**30), 10**30),
    "optimizer.lr": st.floats(allow_nan=False, allow_infinity=False),
    "model.temporal.dropout": st.floats(allow_nan=False, allow_infinity=False),
    "schedule.warmup": st.floats(allow_nan=False, allow_infinity=False),
    "data.root": st.text() | st.none(),
}


@settings(max_examples=40, deadline=None)
@given(case=st.sampled_from(sorted(NUMBERS)).flatmap(lambda key: st.tuples(st.just(key), NUMBERS[key])))
@example(case=("data.root", "None"))
@example(case=("data.root", "true"))
@example(case=("data.root", "'"))
@example(case=("data.root", "a=b\\n"))
@example(case=("optimizer.lr", 5e-324))
def test_an_override_with_the_repr_of_a_value_sets_that_value(case):
    key, value = case
    changed = change(EXAMPLE, f"{key}={value!r}")
    rendered = again(render(changed))
    for node in (changed, rendered):
        for name in key.split("."):
            node = settings_of(node)[name][1]
        assert node == value and type(node) is type(value)


@settings(max_examples=50, deadline=None)
@given(key=st.sampled_from(sorted(NUMBERS)), raw=st.text(max_size=12))
def test_any_text_as_a_value_is_accepted_or_refused_by_name(key, raw):
    try:
        render(change(EXAMPLE, f"{key}={raw}"))
    except SeqclfError as error:
        assert key in str(error)


@pytest.mark.parametrize("package", ["seqclf", *(f"seqclf.{name}" for name in seqclf._NAMESPACES)])
def test_records_hold_the_names_that_people_import(package):
    """They stay when a module inside seqclf moves, so that runs written before can be used."""
    module = sys.modules[package] if package == "seqclf" else getattr(seqclf, package.removeprefix("seqclf."))
    public = [getattr(module, name) for name in module.__all__]
    functions = [symbol for symbol in public if inspect.isfunction(symbol) or inspect.isclass(symbol)]
    assert len(functions) > 2
    for function in functions:
        recorded = to_recipe(function)
        assert from_recipe(recorded) is function
        where, _, name = recorded["call"].partition(":")
        assert where.count(".") <= 1 and name == function.__name__, recorded
        assert resume_fingerprint(replace(EXAMPLE, loss=function))["loss"] == f"{where}.{name}"
