"""The model card of an export: what it is, what it scores, how it is called; its Python runs as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MANY = 40
"""More classes than that are left to model.json."""


def write_card(path: Path, about: dict[str, Any], config: str) -> None:
    """Writes the card.

    Args:
        about: what ``model.json`` holds.
        config: the text of the run's config.
    """
    classes = about["classes"]
    shape = ", ".join(map(str, about["frame_shape"]))
    sections = [
        f"# {about['run']}",
        f"A sequence classifier with {about['parameters']:,} parameters, {len(classes)} classes, "
        f"after {about['step']:,} steps of training on {about['data']}. Exported {about['exported']} by seqclf "
        f"{about['versions']['seqclf']}.",
        "## Figures",
        _figures(about["figures"]),
        "## Files",
        f"Each was compared with the model on {about['checked_on']}: the largest difference of probabilities, "
        f"memory and logits (these as a share of the largest, where that is above 1).",
        _files(about),
        f"Times on a CPU with {about['threads']} thread(s), all of a kind called in turn:",
        _latency(about),
        *_int8(about),
        "## How it is called",
        _inputs(about, shape),
        *_snippet(about),
        "## Classes",
        ", ".join(f"{k} {name}" for k, name in enumerate(classes[:MANY]))
        + (f", and {len(classes) - MANY} more in model.json" if len(classes) > MANY else ""),
        "## Config",
        f"```\n{config.rstrip()}\n```",
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    ]
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lines of Markdown; all columns but the first are numbers."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def _figures(parts: dict[str, dict[str, float]]) -> str:
    if not parts:
        return "The run has none for these weights."
    names = [
        name for name in ("clip_last", "clip_mean", "frame_accuracy", "loss") if all(name in p for p in parts.values())
    ]
    rows = [
        [name, *(f"{f[name]:.4f}" if name == "loss" else percent(f[name]) for f in parts.values())] for name in names
    ]
    rows += [[f"{name} counted", *(f"{f[name]:,}" for f in parts.values())] for name in ("clips", "frames")]
    return table(["", *parts], rows)


def _files(about: dict[str, Any]) -> str:
    rows = []
    for name, file in about["files"].items():
        difference = f"{file['difference']:.1e}" if "difference" in file else "see below"
        rows.append([f"`{name}`", f"{file['bytes'] / 1e6:.2f}", difference])
    return table(["", "MB", "difference"], rows)


def _latency(about: dict[str, Any]) -> str:
    rows = []
    for form, measured in about["latency"].items():
        of = "a frame of a stream" if form == "stream" else f"a clip of {measured['frames']} frames"
        rows += [
            [f"{name}, {of}", f"{times['p50_ms']:.3f}", f"{times['p99_ms']:.3f}"]
            for name, times in measured.items()
            if name != "frames"
        ]
    return table(["one call, ms", "median", "99th percentile"], rows)


def _int8(about: dict[str, Any]) -> list[str]:
    found = about.get("int8")
    if found is None:
        return []
    if not found["clips"]:
        return [f"Weights of 8 bits: {found['why']}."]
    names = [name for name, value in found["float"].items() if value is not None]
    text = [
        [f"{found[kind][name]:.4f}" if name == "loss" else percent(found[kind][name]) for kind in ("float", "int8")]
        for name in names
    ]
    said = (
        f"Weights of 8 bits against floats, on {found['clips']:,} of {found['of']:,} test clips, "
        "each fed frame by frame:"
    )
    return [said, table(["", "float", "int8"], [[name, *row] for name, row in zip(names, text, strict=True)])]


def _inputs(about: dict[str, Any], shape: str) -> str:
    kind = about["frames"]
    raw = "raw, from 0 to 255" if kind == "uint8" else "as the run's data gives them"
    lines = [
        f"* `frames`: {kind} `(B, T, {shape})`, {raw}: scaling, mean and channel order are inside. "
        "B and T are any from 1.",
        f"* Answers: `logits` and `probabilities` float32 `(B, T, {len(about['classes'])})`, at every frame in the "
        "light of those before it; of a clip, take its last frame's.",
    ]
    memory = _memory(about)
    if memory:
        before, after = (", ".join(f"`{prefix}{name}`" for name in memory) for prefix in ("", "next_"))
        layers, _, hidden = memory["h"]
        lines += [
            "* `model.*` take whole clips. Clips of one batch that are shorter are padded at their end, which changes "
            "nothing before it.",
            f"* `stream.*` take a part of a stream, of one frame or more, with `is_first` bool `(B, T)`, true where a "
            f"frame begins a new sequence, and the memory {before} float32 `({layers}, B, {hidden})`, zeros at first; "
            f"they answer with the memory to go on from, too: {after}.",
        ]
    else:
        lines.append("* The model has no memory: each frame is classified by itself, in clips and streams alike.")
    return "\n".join(lines)


def _memory(about: dict[str, Any]) -> dict[str, list[Any]]:
    """The shapes of a stream's memory by name; empty where the model has none."""
    inputs = about["forms"].get("stream", {"inputs": {}})["inputs"]
    return {name: shape for name, (_, shape) in inputs.items() if name not in ("frames", "is_first")}


def _snippet(about: dict[str, Any]) -> list[str]:
    """Python that runs in the folder, for ONNX Runtime."""
    if "model.onnx" not in about["files"]:
        return []
    shape = tuple(about["frame_shape"])
    draw = f"np.random.randint(0, 256, {(1, 8, *shape)}, np.uint8)"
    if about["frames"] != "uint8":
        draw = f"np.random.rand{(1, 8, *shape)}.astype(np.float32)"
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
        "print(classes[probabilities[0, -1].argmax()])",
    ]
    memory = _memory(about)
    if memory:
        layers, _, hidden = memory["h"]
        after = ", ".join(f'"next_{name}"' for name in memory)
        lines += [
            "",
            'stream = onnxruntime.InferenceSession("stream.onnx")',
            f"memory = {{name: np.zeros(({layers}, 1, {hidden}), np.float32) for name in {tuple(memory)}}}",
            "for t in range(frames.shape[1]):  # as frames come in",
            '    inputs = {"frames": frames[:, t : t + 1], "is_first": np.zeros((1, 1), bool), **memory}',
            f'    streamed, *after = stream.run(["probabilities", {after}], inputs)',
            "    memory = dict(zip(memory, after))",
            "assert np.allclose(streamed[:, 0], probabilities[:, -1], atol=1e-4)",
        ]
    return ["```python\n" + "\n".join(lines) + "\n```"]
