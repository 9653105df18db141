"""Feature sequences in the layout of temporal action segmentation, and labels per frame from a CSV of segments."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import given as given_cases
from hypothesis import strategies as st

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data import annotated_set, open_video, video_set, whole
from seqclf.data.frames.feature_file import FeatureFile
from seqclf.data.sets.ground_truth import read_mapping
from seqclf.data.sets.segmentation import segmentation_set

quick = partial(settings, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
_ = IGNORE  # short, for tables of labels
CLASSES = ["background", "cut", "mix"]


@pytest.fixture
def features(tmp_path):
    """``(T, D)`` = (11, 3), in a file as (D, T) and in one as (T, D)."""
    values = np.random.default_rng(0).standard_normal((11, 3)).astype(np.float32)
    np.save(tmp_path / "dt.npy", values.T)
    np.save(tmp_path / "td.npy", values)
    return values


def make_set(root, lengths, labels=None, transpose=True, D=3):
    """A set of made features and labels; ``labels``: numbers of labels that differ from those of the features."""
    rng = np.random.default_rng(1)
    for folder in ("features", "groundTruth", "splits"):
        (root / folder).mkdir(exist_ok=True)
    for name, T in lengths.items():
        values = rng.standard_normal((T, D)).astype(np.float32)
        np.save(root / "features" / f"{name}.npy", values.T if transpose else values)
        labels_of_file = [CLASSES[k] for k in rng.integers(0, 3, (labels or {}).get(name, T))]
        (root / "groundTruth" / f"{name}.txt").write_text("\n".join(labels_of_file) + "\n")
    (root / "mapping.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(CLASSES)))
    (root / "splits" / "train.split1.bundle").write_text("".join(f"{name}.txt\n" for name in lengths))
    return root


# ------------------------------------------------------------------------------------------------------ feature files


@pytest.mark.parametrize("sample_rate", [1, 2, 3, 20])
@pytest.mark.parametrize(
    ("name", "layout"), [("dt", {"layout": "features_first"}), ("td", {"layout": "time_first"}), ("td", {})]
)
def test_frames_are_the_time_steps_of_the_file_in_either_layout(tmp_path, features, name, layout, sample_rate):
    source = FeatureFile(tmp_path / f"{name}.npy", sample_rate, **layout)
    expected = torch.from_numpy(features[::sample_rate])
    assert len(source) == len(expected) and source.frame_shape == (3,)
    n = len(source)
    for numbers in (range(n), range(n - 1, -1, -1), [0], [n - 1, 0, 0], range(0, n, 2), range(n // 2, n), []):
        frames = source.read(numbers)
        assert frames.dtype == torch.float32 and frames.is_contiguous()
        assert torch.equal(frames, expected[list(numbers)])


@quick(max_examples=60)
@given_cases(st.lists(st.integers(0, 5), max_size=9))
def test_any_numbers_in_any_order(tmp_path, features, numbers):
    assert torch.equal(FeatureFile(tmp_path / "td.npy", 2).read(numbers), torch.from_numpy(features[::2][numbers]))


def test_an_unexpected_number_of_features_is_refused_with_the_layout_that_fits(tmp_path, features):
    assert len(FeatureFile(tmp_path / "td.npy", size=3)) == 11
    with pytest.raises(SeqclfError, match=r"dt\.npy: .*11 .*layout=features_first.* 3"):
        len(FeatureFile(tmp_path / "dt.npy", size=3))
    with pytest.raises(SeqclfError, match=r"td\.npy: .* 3 .*D=5"):
        len(FeatureFile(tmp_path / "td.npy", size=5))


def test_the_reader_of_a_file_opens_others_in_the_same_way(tmp_path, features):
    source = FeatureFile(tmp_path / "dt.npy", 2, "features_first")
    assert torch.equal(source.reader()(tmp_path / "dt.npy").read([1]), source.read([1]))
    with pytest.raises(SeqclfError, match="expected D=3"):
        len(source.reader()(tmp_path / "td.npy"))  # never transposed silently


@pytest.mark.parametrize("n", [3, 9])
def test_a_clip_in_a_video_set_is_time_first_also_if_square(tmp_path, n):
    values = np.random.default_rng(0).standard_normal((9, n)).astype(np.float32)
    for k in range(4):
        np.save(tmp_path / f"{k}.npy", values)
    (tmp_path / "list.txt").write_text("0.npy 0\n1.npy 1\n")
    (tmp_path / "other.txt").write_text("2.npy 0\n3.npy 1\n")
    assert torch.equal(open_video(tmp_path / "0.npy").read(range(9)), torch.from_numpy(values))
    for layout, expected in (("time_first", values), ("features_first", values.T)):
        data = video_set(str(tmp_path), "list.txt", "other.txt", sampling=whole, layout=layout)
        assert np.array_equal(data.test.batch(torch.arange(1)).frames[0].numpy(), expected)
        assert ("(T, D)" if layout == "time_first" else "(D, T)") in data.source
        reader = data.input_spec().build_reader("array")
        assert np.array_equal(reader(tmp_path / "3.npy").read(range(len(expected))).numpy(), expected)
    with pytest.raises(SeqclfError, match="layout='auto'"):
        video_set(str(tmp_path), "list.txt", "other.txt", layout="auto")


def test_one_value_per_time_step_is_one_feature(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(5.0))
    assert FeatureFile(tmp_path / "t.npy").read(range(5)).tolist() == [[0], [1], [2], [3], [4]]


def test_a_length_cuts_the_file_before_it_is_sampled(tmp_path, features):
    source = FeatureFile(tmp_path / "td.npy", sample_rate=2, length=7)
    assert torch.equal(source.read(range(len(source))), torch.from_numpy(features[:7:2]))


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4", "int16", "uint8", "bool"])
def test_values_of_any_dtype_become_float32(tmp_path, dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    assert torch.equal(FeatureFile(tmp_path / "x.npy").read(range(3)), torch.from_numpy(values.astype("float32")))


def test_a_file_in_fortran_order_is_the_same(tmp_path, features):
    np.save(tmp_path / "f.npy", np.asfortranarray(features))
    assert torch.equal(FeatureFile(tmp_path / "f.npy").read([4, 2]), torch.tensor(features[[4, 2]]))


def test_a_source_opens_its_file_on_first_use_and_holds_no_data(tmp_path):
    source = FeatureFile(tmp_path / "later.npy")
    with pytest.raises(SeqclfError, match=r"later\.npy: "):
        len(source)
    np.save(tmp_path / "later.npy", np.ones((2000, 50), dtype=np.float32))
    assert len(source) == 2000
    source.read([0])
    assert len(pickle.dumps(source)) < 1000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_value_that_is_not_finite_is_refused_with_its_frame(tmp_path, features, value):
    damaged = features.astype(np.float64)
    damaged[6, 1] = value
    np.save(tmp_path / "nan.npy", damaged)
    source = FeatureFile(tmp_path / "nan.npy", sample_rate=2)
    source.read([0, 1, 2, 4])
    with pytest.raises(SeqclfError, match=r"nan\.npy: frame 6"):
        source.read([4, 3])


def test_large_values_whose_sum_overflows_are_accepted(tmp_path):
    np.save(tmp_path / "x.npy", np.full((2, 9), 3e38, dtype=np.float32))
    assert FeatureFile(tmp_path / "x.npy").read(range(2)).isfinite().all()


@pytest.mark.parametrize("content", [b"", b"no array", "cut", "object", "cube", "none", "complex", "text"])
def test_a_damaged_file_or_one_of_another_shape_is_refused_by_name(tmp_path, features, content):
    path = tmp_path / "bad.npy"
    arrays = {
        "object": np.array([[{}]]),
        "cube": np.ones((2, 3, 4)),
        "none": np.ones((5, 0)),
        "complex": np.ones((2, 2), dtype=complex),
        "text": np.array([["a"]]),
    }
    if content == "cut":
        path.write_bytes((tmp_path / "dt.npy").read_bytes()[:-1])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, arrays[content])
    with pytest.raises(SeqclfError, match=r"bad\.npy"):
        FeatureFile(path).read([0])


@pytest.mark.parametrize("number", [-1, 11])
def test_a_frame_beyond_the_end_is_refused(tmp_path, features, number):
    with pytest.raises(SeqclfError, match=rf"td\.npy: .*{number}.* 0 to 10"):
        FeatureFile(tmp_path / "td.npy").read([0, number])


@pytest.mark.parametrize(("setting", "words"), [({"sample_rate": 0}, "sample_rate=0"), ({"layout": "yes"}, "'yes'")])
def test_invalid_settings_are_refused(tmp_path, setting, words):
    with pytest.raises(SeqclfError, match=words):
        FeatureFile(tmp_path / "x.npy", **setting)


# ------------------------------------------------------------------------------------------------------ a set of them


@pytest.mark.parametrize(
    ("transpose", "layout"), [(True, "features_first"), (True, "auto"), (False, "time_first"), (False, "auto")]
)
@pytest.mark.parametrize("sample_rate", [1, 4])
def test_a_set_has_features_and_labels_at_the_sample_rate(tmp_path, transpose, layout, sample_rate):
    root = make_set(tmp_path, {"b-2": 9, "a.1": 3, "c": 1}, transpose=transpose)
    videos, classes, notes = segmentation_set(root, "train.split1", sample_rate, layout=layout)
    assert classes == CLASSES
    assert [video.name for video in videos] == ["b-2", "a.1", "c"]  # in the order of the list
    for video in videos:
        features = np.load(root / "features" / f"{video.name}.npy")
        names = (root / "groundTruth" / f"{video.name}.txt").read_text().split()
        assert video.source.frame_shape == (3,)
        assert torch.equal(
            video.source.read(range(len(video.source))),
            torch.from_numpy((features.T if transpose else features)[::sample_rate]),
        )
        assert video.labels.dtype == torch.int64
        assert video.labels.tolist() == [classes.index(name) for name in names[::sample_rate]]
    frames = sum(len(video.source) for video in videos)
    assert len(notes) == 1 and f"3 videos, {frames} frames of 3 features" in notes[0]


def test_auto_takes_the_layout_that_fits_the_labels_and_refuses_if_both_or_neither_fit(tmp_path):
    for transpose in (True, False):
        make_set(tmp_path, {"a": 40, "b": 20}, {"a": 38, "b": 21}, transpose=transpose, D=9)
        videos, _, notes = segmentation_set(tmp_path, "train.split1", layout="auto")
        assert [len(video.source) for video in videos] == [38, 20]
        assert ("(D, T)" if transpose else "(T, D)") in notes[0]
        make_set(tmp_path, {"a": 60, "b": 40}, {"a": 20, "b": 12}, transpose=transpose, D=9)
        with pytest.raises(SeqclfError, match=r"a\.npy: layout=auto: .*(20|12) .*layout=time_first"):
            segmentation_set(tmp_path, "train.split1", layout="auto")
        make_set(tmp_path, {"a": 9, "b": 9}, transpose=transpose, D=9)
        with pytest.raises(SeqclfError, match="layout=auto: both"):
            segmentation_set(tmp_path, "train.split1", layout="auto")


def test_a_wrong_layout_is_refused(tmp_path):
    make_set(tmp_path, {"a": 60, "b": 60}, transpose=False, D=29)
    with pytest.raises(SeqclfError, match=r"a\.npy.* 29 .* 60 .*layout="):
        segmentation_set(tmp_path, "train.split1")


@pytest.mark.parametrize("sample_rate", [1, 3])
def test_lengths_that_differ_are_cut_to_the_shorter_and_counted(tmp_path, sample_rate):
    root = make_set(tmp_path, {"a": 20, "b": 22, "c": 9}, {"a": 22, "b": 19})
    videos, _, notes = segmentation_set(root, "train.split1", sample_rate)
    expected = [len(range(0, T, sample_rate)) for T in (20, 19, 9)]
    assert [len(video.source) for video in videos] == [len(video.labels) for video in videos] == expected
    assert "2 of 3 videos" in notes[1] and "by up to 3 frames" in notes[1]
    assert f"{root / 'features' / 'a.npy'} has 20 frames" in notes[1] and "22 labels" in notes[1]


def test_lengths_that_differ_are_refused_by_setting_or_if_they_differ_much(tmp_path):
    root = make_set(tmp_path, {"a": 20, "b": 20}, {"b": 21})
    with pytest.raises(SeqclfError, match=r"b\.npy.* 20 .*b\.txt.* 21 .*on_length=cut"):
        segmentation_set(root, "train.split1", on_length="refuse")
    make_set(tmp_path, {"a": 20, "b": 20}, {"b": 29})
    segmentation_set(root, "train.split1")
    make_set(tmp_path, {"a": 20, "b": 20}, {"b": 30})
    with pytest.raises(SeqclfError, match=r"b\.npy.* 20 .*b\.txt.* 30 "):
        segmentation_set(root, "train.split1")
    with pytest.raises(SeqclfError, match="on_length"):
        segmentation_set(root, "train.split1", on_length="maybe")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("groundTruth/b.txt", "cut\nstir\nmix\n", r"b\.txt, line 2: class 'stir' is not in .*mapping\.txt"),
        ("groundTruth/b.txt", "cut\n\nmix\n", r"b\.txt, line 2: empty"),
        ("groundTruth/b.txt", "\n", r"b\.txt: is empty"),
        ("groundTruth/b.txt", None, r"b\.txt: no such file"),
        ("groundTruth/b.txt", b"\xff\xfe\xff", r"b\.txt: is not UTF-8 text"),
        ("features/b.npy", None, r"b\.npy: no such file"),
        ("features/b.npy", "no array", r"b\.npy: not an \.npy file"),
        ("mapping.txt", None, r"mapping\.txt: no such file"),
        ("mapping.txt", "0 cut\nmix\n", r"mapping\.txt, line 2: .*'mix'"),
        ("mapping.txt", "0 cut\n0 mix\n", r"mapping\.txt, line 2: class 'mix' has the number 0, expected 1"),
        ("mapping.txt", "0 cut\n1 cut\n", r"mapping\.txt, line 2: class 'cut' is already in line 1"),
        ("mapping.txt", "1 cut\n2 mix\n", r"mapping\.txt: .*index name.* from 0"),
        ("splits/train.split1.bundle", "a.txt\nb.txt\na.txt\n", r"bundle, line 3: video a is already in line 1"),
        ("splits/train.split1.bundle", "\n", r"bundle: is empty"),
    ],
)
def test_a_missing_or_wrong_file_is_named_with_its_line(tmp_path, file, content, words):
    make_set(tmp_path, {"a": 5, "b": 3})
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SeqclfError, match=words):
        segmentation_set(tmp_path, "train.split1")


def test_a_missing_split_is_refused_with_those_that_exist(tmp_path):
    make_set(tmp_path, {"a": 5})
    with pytest.raises(SeqclfError, match=r"train\.split9\.bundle: .*train\.split1"):
        segmentation_set(tmp_path, "train.split9")
    assert segmentation_set(tmp_path, "train.split1.bundle")[0][0].name == "a"


def test_features_of_different_sizes_are_refused(tmp_path):
    make_set(tmp_path, {"a": 9, "b": 8})
    np.save(tmp_path / "features" / "b.npy", np.ones((4, 8)))
    with pytest.raises(SeqclfError, match=r"b\.npy: .* 8 .* 4 "):
        segmentation_set(tmp_path, "train.split1")


def test_files_as_other_systems_write_them(tmp_path):
    """A byte-order mark, \\r\\n, blank lines at the end, names with spaces, lines in any order."""
    make_set(tmp_path, {"a": 2})
    (tmp_path / "mapping.txt").write_bytes(b"\xef\xbb\xbf1 take a bowl\r\n0 cut\r\n\r\n")
    (tmp_path / "groundTruth" / "a.txt").write_bytes(b"take a bowl\r\ncut\r\n\r\n")
    videos, classes, _ = segmentation_set(tmp_path, "train.split1")
    assert classes == read_mapping(tmp_path / "mapping.txt") == ["cut", "take a bowl"]
    assert videos[0].labels.tolist() == [1, 0]


@pytest.mark.parametrize("make", [video_set, annotated_set])
def test_a_layout_that_labels_cannot_decide_is_refused(make, tmp_path):
    with pytest.raises(SeqclfError, match=r"layout='auto'.*time_first.*features_first"):
        make(str(tmp_path), "train.txt", "test.txt", layout="auto")
