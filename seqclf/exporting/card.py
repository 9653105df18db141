"""The model card of an export: what the model is, its metrics, how it reads input, and Python that calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqclf.exporting.int8 import METRICS
from seqclf.reporting.page import percent
from seqclf.runtime.files import write_atomic
from seqclf.runtime.text import counted

MOST_CLASSES = 40
"""The largest number of classes that the card lists; model.json has all."""


def write_card(path: Path, about: dict[str, Any], config: str) -> None:
    """Writes the card.

    Args:
        path: the file.
        about: the content of ``model.json``.
        config: the text of the run's config.
    """
    classes = about["classes"]
    more = f", and {len(classes) - MOST_CLASSES} more in model.json" if len(classes) > MOST_CLASSES else ""
    sections = [
        f"# {about['run']}",
        f"A sequence classifier with {about['parameters']:,} parameters and {len(classes)} classes, trained for "
        f"{about['step']:,} steps on {about['data']}. Exported {about['exported']} with seqclf "
        f"{about['versions']['seqclf']}.",
        "## Metrics",
        _metrics(about["figures"]),
        "## Files",
        f"Each file was compared with the model on {about['checked_on']}. The difference is the largest over "
        "probabilities, memory and logits (relative for logits above 1).",
        _files(about),
        *_not_written(about),
        f"Time of one call on a CPU with {counted(about['threads'], 'thread')}:",
        _latency(about),
        *_int8(about),
        "## Input and output",
        _signature(about),
        *_snippet(about),
        "## Classes",
        ", ".join(f"{k} {name}" for k, name in enumerate(classes[:MOST_CLASSES])) + more,
        "## Config",
        f"```\n{config.rstrip()}\n```",
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    ]
    write_atomic(path, "\n\n".join(sections) + "\n")


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table; all columns but the first are right-aligned."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _metrics(parts: dict[str, dict[str, float]]) -> str:
    if not parts:
        return "The run has no metrics for these weights."
    names = [name for name in METRICS if all(name in p for p in parts.values())]
    rows = [
        [name, *(f"{f[name]:.4f}" if name == "loss" else percent(f[name]) for f in parts.values())] for name in names
    ]
    rows += [[f"number of {name}", *(f"{f[name]:,}" for f in parts.values())] for name in ("clips", "frames")]
    return markdown_table(["", *parts], rows)


def _files(about: dict[str, Any]) -> str:
    rows = []
    for name, file in about["files"].items():
        difference = f"{file['difference']:.1e}" if "difference" in file else "see below"
        rows.append([f"`{name}`", f"{file['bytes'] / 1e6:.2f}", difference])
    return markdown_table(["", "MB", "difference"], rows)


def _not_written(about: dict[str, Any]) -> list[str]:
    lines = [f"* `{name}`: {reason}." for name, reason in about["not_written"].items()]
    return ["Not written:", "\n".join(lines)] if lines else []


def _latency(about: dict[str, Any]) -> str:
    rows = []
    for form, measured in about["latency"].items():
        unit = "one frame of a stream" if form == "stream" else f"a clip of {measured['frames']} frames"
        rows += [
            [f"{name}, {unit}", f"{times['p50_ms']:.3f}", f"{times['p99_ms']:.3f}"]
            for name, times in measured.items()
            if name != "frames"
        ]
    return markdown_table(["ms", "median", "99th percentile"], rows)


def _int8(about: dict[str, Any]) -> list[str]:
    found = about.get("int8")
    if found is None:
        return []
    if not found["clips"]:
        return [f"8-bit weights: {found['why']}."]
    names = [name for name, value in found["float"].items() if value is not None]
    rows = [
        [name, *(f"{found[k][name]:.4f}" if name == "loss" else percent(found[k][name]) for k in ("float", "int8"))]
        for name in names
    ]
    text = f"8-bit weights against floats, on {found['clips']:,} of {found['of']:,} test clips fed frame by frame:"
    return [text, markdown_table(["", "float", "int8"], rows)]


def _signature(about: dict[str, Any]) -> str:
    shape = ", ".join(map(str, about["frame_shape"]))
    kind = about["frames"]
    scale = "raw, from 0 to 255" if kind == "uint8" else "as the data of the run provides them"
    rule = "the mean over its frames" if about["input"]["decision"] == "mean" else "its last frame"
    depends = (
        "The output at a frame depends on that frame and earlier ones only"
        if about["causal"]
        else "The output at a frame depends on the whole clip, so that all clips of a batch must have the same length"
    )
    lines = [
        f"* `frames`: {kind} `(B, T, {shape})`, {scale}. Scaling, mean and channel order are part of the model. "
        "B and T are at least 1.",
        *_normalization(about["normalization"]),
        *_preparation(about["input"]),
        f"* Output: `logits` and `probabilities`, float32 `(B, T, {len(about['classes'])})`. {depends}. "
        f"{_meaning(about, rule)}",
    ]
    memory = _memory(about)
    if memory:
        before, after = (", ".join(f"`{prefix}{name}`" for name in memory) for prefix in ("", "next_"))
        sizes = [f"  * `{name}`: {dtype} `({', '.join(map(str, sizes))})`" for name, (dtype, sizes) in memory.items()]
        lines += [
            "* `model.*` take whole clips. Pad shorter clips of a batch at the end; padding does not change the frames "
            "before it.",
            "* `stream.*` take one frame or more of a stream, `is_first` bool `(B, T)` (true where a frame starts a "
            f"new sequence) and the memory {before}, zeros at first. They also return the memory for the next call: "
            f"{after}. `stream.pt2` takes the memory as a dict, `memory`.",
            *sizes,
        ]
    elif about["streams"]:
        lines.append("* The model has no memory: it classifies each frame alone.")
    return "\n".join(lines)


def _meaning(about: dict[str, Any], rule: str) -> str:
    """What the probabilities say about a clip."""
    if about["input"]["multi_label"]:
        return (
            "A clip can have several classes: each probability is the sigmoid of its logit. The classes of a clip are "
            f"those with a probability of at least 0.5, by {rule}."
        )
    return f"The class of a clip is that of {rule}."


def _normalization(found: dict[str, Any] | None) -> list[str]:
    """The statistics of the training frames, which are part of the exported files."""
    if found is None:
        return []
    mean, std = (_numbers(found[name]) for name in ("mean", "std"))
    of = f"{found['frames']:,} frames of {found['clips']:,} training clips"
    return [f"* Normalisation: mean {mean}, standard deviation {std}, of {of}."]


def _numbers(values: float | list[float]) -> str:
    values = values if isinstance(values, list) else [values]
    more = f" and {len(values) - 16} more in model.json" if len(values) > 16 else ""
    return ", ".join(f"{value:.6g}" for value in values[:16]) + more


def _preparation(spec: dict[str, Any]) -> list[str]:
    """How the run turned files into frames, which is not part of the exported files."""
    steps = {"sampling": spec["sampling"], "transform": spec["transform"]}
    return [
        f"* {name.capitalize()} in evaluation, to apply before the model: `{recipe_text(recipe)}`."
        for name, recipe in steps.items()
        if recipe
    ]


def recipe_text(recipe: Any) -> str:
    """A recorded setting as text, such as ``resize(size=(8, 8))``."""
    if isinstance(recipe, list):
        return f"[{', '.join(map(recipe_text, recipe))}]"
    if not isinstance(recipe, dict):
        return repr(recipe)
    if "tuple" in recipe:
        inner = ", ".join(map(recipe_text, recipe["tuple"]))
        return f"({inner},)" if len(recipe["tuple"]) == 1 else f"({inner})"
    if "mapping" in recipe:
        return "{" + ", ".join(f"{key}: {recipe_text(value)}" for key, value in recipe["mapping"].items()) + "}"
    name = str(recipe.get("call") or recipe.get("built") or recipe.get("opaque")).rpartition(":")[2]
    arguments = [recipe_text(value) for value in recipe.get("arguments", ())]
    arguments += [f"{key}={recipe_text(value)}" for key, value in recipe.get("keywords", {}).items()]
    return f"{name}({', '.join(arguments)})" if arguments else name


def _memory(about: dict[str, Any]) -> dict[str, list[Any]]:
    """The dtype and shape of the memory of a stream by name; empty if the model has none."""
    inputs = about["forms"].get("stream", {"inputs": {}})["inputs"]
    return {name: kind for name, kind in inputs.items() if name not in ("frames", "is_first")}


def _snippet(about: dict[str, Any]) -> list[str]:
    """Python for ONNX Runtime that runs in the folder."""
    if "model.onnx" not in about["files"]:
        return []
    shape = tuple(about["frame_shape"])
    draw = f"np.random.randint(0, 256, {(1, 8, *shape)}, np.uint8)"
    if about["frames"] != "uint8":
        draw = f"np.random.rand{(1, 8, *shape)}.astype(np.float32)"
    clip = "probabilities[0].mean(0)" if about["input"]["decision"] == "mean" else "probabilities[0, -1]"
    lines = [
        "import json",
        "from pathlib import Path",
        "",
        "import numpy as np",
        "import onnxruntime",
        "",
        'classes = json.loads(Path("model.json").read_text())["classes"]',
        f"frames = {draw}  # your clip",
        'model = onnxruntime.InferenceSession("model.onnx")',
        '(probabilities,) = model.run(["probabilities"], {"frames": frames})',
        f"print([name for name, p in zip(classes, {clip}) if p >= 0.5])"
        if about["input"]["multi_label"]
        else f"print(classes[{clip}.argmax()])",
    ]
    memory = _memory(about)
    if memory and "stream.onnx" in about["files"]:
        zeros = [
            f'    "{name}": np.zeros({tuple(1 if size == "B" else size for size in sizes)}, np.{dtype}),'
            for name, (dtype, sizes) in memory.items()
        ]
        after = ", ".join(f'"next_{name}"' for name in memory)
        lines += [
            "",
            'stream = onnxruntime.InferenceSession("stream.onnx")',
            "memory = {",
            *zeros,
            "}",
            "for t in range(frames.shape[1]):  # as frames arrive",
            '    inputs = {"frames": frames[:, t : t + 1], "is_first": np.zeros((1, 1), bool), **memory}',
            f'    streamed, *after = stream.run(["probabilities", {after}], inputs)',
            "    memory = dict(zip(memory, after))",
            "assert np.allclose(streamed[:, 0], probabilities[:, -1], atol=1e-4)",
        ]
    return ["```python\n" + "\n".join(lines) + "\n```"]
