"""Operations on a net's layers: filter by phase, check what reads what, insert ``Split`` layers, remove inputs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from seqclf.caffe.error import CaffeFormatError

_PHASES = {"TRAIN": 0, "TEST": 1}


def filter_layers(net: Any, phase: str, level: int, stages: tuple[str, ...], name: str) -> None:
    """Removes the layers whose include and exclude rules do not match, in place (Net::FilterNet, Net::StateMeetsRule).

    Args:
        net: a ``NetParameter``. The level and stages of its own ``state`` apply, too.
        phase: "TRAIN" or "TEST".
        level, stages: the state that the rules are matched with.
        name: the file that errors name.

    Raises:
        CaffeFormatError: a layer has both include and exclude rules.
    """
    number = _PHASES[phase]
    level = level or net.state.level
    stages = (*net.state.stage, *stages)

    def holds(rule: Any) -> bool:
        return (
            (not rule.HasField("phase") or rule.phase == number)
            and (not rule.HasField("min_level") or level >= rule.min_level)
            and (not rule.HasField("max_level") or level <= rule.max_level)
            and set(rule.stage) <= set(stages)
            and not set(rule.not_stage) & set(stages)
        )

    kept = []
    for layer in net.layer:
        if len(layer.include) and len(layer.exclude):
            raise CaffeFormatError(
                f'{name}: layer "{layer.name}": has both include and exclude rules, expected one kind'
            )
        if any(map(holds, layer.include)) if len(layer.include) else not any(map(holds, layer.exclude)):
            kept.append(layer)
    if len(kept) < len(net.layer):
        copies = [type(layer).FromString(layer.SerializePartialToString()) for layer in kept]
        net.ClearField("layer")
        net.layer.extend(copies)


def check_graph(net: Any) -> tuple[list[str], list[str]]:
    """Checks that every bottom is the top of an earlier layer, and that no two layers have the same top.

    Returns:
        outputs: the tops that no layer reads, in Caffe's order (alphabetical).
        problems: one sentence for each problem, which names the layer.
    """
    reads: dict[str, int] = {}  # of the newest blob of each name
    problems: list[str] = []
    for layer in net.layer:
        where = f'layer "{layer.name}" ({layer.type})'
        for bottom in layer.bottom:
            if bottom not in reads:
                later = any(bottom in other.top for other in net.layer)
                note = " (only of a later one)" if later else ""
                problems.append(f'{where}: bottom "{bottom}" is the top of no earlier layer{note}')
            reads[bottom] = reads.get(bottom, 0) + 1
        for i, top in enumerate(layer.top):
            if top in reads:
                in_place = i < len(layer.bottom) and layer.bottom[i] == top
                if not in_place:
                    problems.append(f'{where}: top "{top}" is already the top of an earlier layer')
                elif reads[top] > 1:
                    problems.append(f'{where}: changes "{top}" in place, but another layer reads it')
            reads[top] = 0
    return sorted(top for top, count in reads.items() if count == 0), problems


def insert_splits(net: Any) -> None:
    """Inserts a ``Split`` layer after every top that is read more than once, in place (insert_splits.cpp).

    A ``.caffemodel`` contains these layers, although the net does not need them. A loss weight counts as one reader.
    """
    newest: dict[str, tuple[int, int]] = {}
    readers: Counter[tuple[int, int]] = Counter()
    source: dict[tuple[int, int], tuple[int, int]] = {}
    weights: dict[tuple[int, int], float] = {}
    for i, layer in enumerate(net.layer):
        for j, bottom in enumerate(layer.bottom):
            source[i, j] = newest[bottom]
            readers[newest[bottom]] += 1
        for j, top in enumerate(layer.top):
            newest[top] = (i, j)
        for j, weight in zip(range(len(layer.top)), layer.loss_weight, strict=False):
            weights[i, j] = weight
            if weight:
                readers[i, j] += 1

    taken: Counter[tuple[int, int]] = Counter()
    names = [layer.name for layer in net.layer]
    result = []
    for i, layer in enumerate(net.layer):
        copy = type(layer)()
        copy.CopyFrom(layer)
        result.append(copy)
        for j, bottom in enumerate(layer.bottom):
            top = source[i, j]
            if readers[top] > 1:
                copy.bottom[j] = f"{bottom}_{names[top[0]]}_{top[1]}_split_{taken[top]}"
                taken[top] += 1
        for j, top_name in enumerate(layer.top):
            if readers[i, j] <= 1:
                continue
            name = f"{top_name}_{layer.name}_{j}_split"
            split = type(layer)(name=name, type="Split", bottom=[top_name])
            split.top.extend(f"{name}_{k}" for k in range(readers[i, j]))
            if weights.get((i, j)):
                split.loss_weight.extend([weights[i, j]] + [0.0] * (readers[i, j] - 1))
                copy.ClearField("loss_weight")
                taken[i, j] += 1
            if layer.HasField("phase"):
                split.phase = layer.phase
            result.append(split)
    net.ClearField("layer")
    net.layer.extend(result)


def without_input_layers(net: Any, shapes: bool) -> Any:
    """Returns a copy of a ``NetParameter`` with lisa-caffe's input fields instead of ``Input`` layers.

    Args:
        net: the net.
        shapes: whether to write the shapes of the inputs, which lisa-caffe's ``.caffemodel`` files do not contain.
    """
    result = type(net)()
    result.CopyFrom(net)
    result.ClearField("layer")
    for param in net.layer:
        if param.type != "Input":
            result.layer.add().CopyFrom(param)
            continue
        result.input.extend(param.top)
        given = param.input_param.shape
        for i in range(len(param.top) if shapes else 0):
            result.input_shape.add().CopyFrom(given[i if len(given) > 1 else 0])
    return result
