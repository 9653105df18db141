"""Pictures of nets: layers as cards in ranks, blobs as lines between them, without any program but matplotlib.

A layer that works in place is a row on the card of the layer whose blob it changes. Cards are ranked by their longest
path from the data, ordered within ranks so that few lines cross, and placed so that lines are straight where they can
be (Sugiyama, Tagawa and Toda 1981). Lengths are in points; "along" is the way that data take, "across" the other.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.layers import Shape

RANKDIRS = ("TB", "LR")

# ---- what a card says


def _window(p: Any) -> str:
    """Kernel, stride and so on of a layer with a window, as far as they are not the usual ones."""

    def pair(name: str, long: str) -> tuple[int, ...]:
        if p.HasField(f"{name}_h") or p.HasField(f"{name}_w"):
            return (getattr(p, f"{name}_h"), getattr(p, f"{name}_w"))
        value = getattr(p, long)
        return (value,) * 2 if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)

    kernel, stride, pad = pair("kernel", "kernel_size"), pair("stride", "stride"), pair("pad", "pad")
    dilation = tuple(getattr(p, "dilation", ()))
    words = ["×".join(map(str, kernel))]
    for word, values, usual in (("/", stride, 1), ("pad ", pad, 0), ("dilation ", dilation, 1)):
        if any(v != usual for v in values):
            words.append(word + "×".join(map(str, dict.fromkeys(values))))
    return " ".join(words)


def _convolution(layer: Any) -> str:
    p = layer.convolution_param
    return f"{p.num_output} of {_window(p)}" + (f" group {p.group}" if p.group > 1 else "")


def _pooling(layer: Any) -> str:
    p = layer.pooling_param
    return f"{p.PoolMethod.Name(p.pool).lower()} " + ("global" if p.global_pooling else _window(p))


def _lrn(layer: Any) -> str:
    p = layer.lrn_param
    return f"{p.local_size} {'channels' if p.norm_region == p.ACROSS_CHANNELS else 'wide'}"


def _data(name: str) -> Callable[[Any], str]:
    return lambda layer: Path(getattr(layer, name).source).name


def _loss(layer: Any) -> str:
    return f"weight {layer.loss_weight[0]:g}" if len(layer.loss_weight) else ""


DETAILS: dict[str, Callable[[Any], str]] = {
    "Accuracy": lambda layer: f"top {layer.accuracy_param.top_k}",
    "Concat": lambda layer: f"axis {layer.concat_param.axis}",
    "ContrastiveLoss": _loss,
    "Convolution": _convolution,
    "Crop": lambda layer: f"from axis {layer.crop_param.axis}",
    "Data": _data("data_param"),
    "Deconvolution": _convolution,
    "Dropout": lambda layer: f"{layer.dropout_param.dropout_ratio:g}",
    "Eltwise": lambda layer: layer.eltwise_param.EltwiseOp.Name(layer.eltwise_param.operation).lower(),
    "Embed": lambda layer: f"{layer.embed_param.num_output} for each of {layer.embed_param.input_dim}",
    "EuclideanLoss": _loss,
    "HDF5Data": _data("hdf5_data_param"),
    "HingeLoss": _loss,
    "ImageData": _data("image_data_param"),
    "InnerProduct": lambda layer: f"{layer.inner_product_param.num_output}",
    "LRN": _lrn,
    "LSTM": lambda layer: f"{layer.recurrent_param.num_output}",
    "Pooling": _pooling,
    "Power": lambda layer: f"({layer.power_param.shift:g} + {layer.power_param.scale:g} x)^{layer.power_param.power:g}",
    "Python": lambda layer: layer.python_param.layer,
    "RNN": lambda layer: f"{layer.recurrent_param.num_output}",
    "ReLU": lambda layer: f"slope {layer.relu_param.negative_slope:g}" if layer.relu_param.negative_slope else "",
    "Reduction": lambda layer: layer.reduction_param.ReductionOp.Name(layer.reduction_param.operation).lower(),
    "SigmoidCrossEntropyLoss": _loss,
    "Slice": lambda layer: f"axis {layer.slice_param.axis}",
    "SoftmaxWithLoss": _loss,
    "Tile": lambda layer: f"{layer.tile_param.tiles} on axis {layer.tile_param.axis}",
}
"""By type, the settings that a reader wants to see, besides the type itself."""

KINDS: dict[str, tuple[str, str]] = {
    # a kind of layers: fill and outline
    "data": ("#e4eaf0", "#5f7388"),
    "convolution": ("#d8e7f8", "#2f6fae"),
    "pooling": ("#d9f0e5", "#238a60"),
    "normalisation": ("#fcf1cf", "#b88c12"),
    "product": ("#e9e1f6", "#7450b0"),
    "recurrent": ("#fde3d0", "#d06c1f"),
    "neuron": ("#efefef", "#7d7d7d"),
    "arrangement": ("#ffffff", "#8c8c8c"),
    "combination": ("#d7eff1", "#2c8592"),
    "loss": ("#fadde0", "#cb3c50"),
}
_TYPES = {
    "data": "Data DummyData HDF5Data ImageData Input MemoryData Parameter Python WindowData",
    "convolution": "Convolution Deconvolution Im2col",
    "pooling": "Pooling SPP",
    "normalisation": "BatchNorm Bias LRN MVN Scale",
    "product": "Embed InnerProduct",
    "recurrent": "LSTM LSTMUnit RNN",
    "neuron": "AbsVal BNLL Clip Dropout ELU Exp Log PReLU Power ReLU Sigmoid Swish TanH Threshold",
    "arrangement": "BatchReindex Concat Crop Filter Flatten HDF5Output Reshape Silence Slice Split Tile",
    "combination": "ArgMax Eltwise Reduction Softmax",
    "loss": "Accuracy ContrastiveLoss EuclideanLoss HingeLoss InfogainLoss MultinomialLogisticLoss "
    "SigmoidCrossEntropyLoss SoftmaxWithLoss",
}
KIND_OF = {kind: name for name, types in _TYPES.items() for kind in types.split()}
"""The kind of each type of layer."""

NAME, DETAIL, LABEL = 9.0, 7.5, 7.0
"""Sizes of letters: of a layer's name, of its type and settings, of a blob's shape."""
ROW, MARGIN, BETWEEN, STEM = 25.0, 9.0, 16.0, 17.0
"""A card's row; the space beside its text; between cards of a rank; how far lines go straight past their labels."""
LONGEST = 44
"""How many letters of a name or setting are shown."""


@dataclass(eq=False)
class _Card:
    """A layer with those that work in place on its tops; or (without rows) a place where a long line passes a rank."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, type and settings, kind."""
    labels: list[str] = field(default_factory=list)
    """Of each top: its name, if that is not the layer's, and its shape."""
    rank: int = 0
    size: tuple[float, float] = (0.0, 0.0)
    """Width and height."""
    along: float = 0.0
    across: float = 0.0
    """Where its middle is."""
    broad: float = 0.0
    """How much room it takes across, its labels included."""
    until: float = 0.0
    """How far along its lines go straight."""
    ports: list[float] = field(default_factory=list)
    """Where the line of each top leaves it, across, from its middle."""
    below: list[_Line] = field(default_factory=list)
    above: list[_Line] = field(default_factory=list)


@dataclass(eq=False)
class _Line:
    """A piece of a blob's way, from one rank to the next."""

    source: _Card
    top: int
    target: _Card
    enters: float = 0.0
    """Where it touches the target, across, from its middle."""


def draw(
    message: Any,
    path: str | Path,
    shapes: Mapping[str, Shape] | None = None,
    rankdir: str = "TB",
) -> Path:
    """Draws a net.

    Args:
        message: an upgraded ``NetParameter`` with the layers of one phase.
        path: the picture to write, ``.svg`` or ``.png``; another file of that name is replaced.
        shapes: the shapes of its blobs, as far as they are known, to be told on the lines.
        rankdir: "TB" from top to bottom, "LR" from left to right.

    Raises:
        CaffeFormatError: the ending is none of these, or the file can't be written.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise CaffeFormatError(f"{path}: expected the ending .svg or .png")
    if rankdir not in RANKDIRS:
        raise CaffeFormatError(f'rankdir={rankdir!r}: expected "TB" or "LR"')
    if not len(message.layer):
        raise CaffeFormatError(f"{path}: the net has no layers to draw")
    flat = rankdir == "LR"
    cards = _cards(message, shapes or {})
    for card in cards:
        card.size = _size(card)
    ranks = _ranks(cards)
    _order(ranks)
    _place(ranks, flat)
    _paint(ranks, path, flat, message.name)
    return path


# ---- the graph


def _cards(message: Any, shapes: Mapping[str, Shape]) -> list[_Card]:
    cards: list[_Card] = []
    makers: dict[str, tuple[_Card, int]] = {}
    for layer in message.layer:
        if layer.type == "Split":  # Caffe's own, one blob under many names
            makers.update((top, makers[layer.bottom[0]]) for top in layer.top if layer.bottom[0] in makers)
            continue
        words = (layer.type, DETAILS.get(layer.type, lambda layer: "")(layer))
        row = (_short(layer.name), _short("  ".join(filter(None, words))), KIND_OF.get(layer.type, "arrangement"))
        if list(layer.top) == list(layer.bottom) and len(layer.top) == 1 and layer.top[0] in makers:
            makers[layer.top[0]][0].rows.append(row)
            continue
        card = _Card([row])
        for bottom in layer.bottom:
            if bottom in makers:  # else a file that names inputs without shapes, as lisa-caffe saves nets
                maker, top = makers[bottom]
                if not any(line.source is maker and line.top == top for line in card.above):
                    _connect(maker, top, card)
        for i, name in enumerate(layer.top):
            shape = " × ".join(map(str, shapes[name])) or "()" if name in shapes else ""
            told = "" if name == layer.name and len(layer.top) == 1 else _short(name)
            card.labels.append("  ".join(filter(None, (told, shape))))
            makers[name] = card, i
        cards.append(card)
    return cards


def _connect(source: _Card, top: int, target: _Card) -> None:
    line = _Line(source, top, target)
    source.below.append(line)
    target.above.append(line)


def _ranks(cards: list[_Card]) -> list[list[_Card]]:
    """The cards by rank, with a place for every blob in each rank that it passes."""
    for card in cards:  # makers come before readers
        card.rank = max((line.source.rank + 1 for line in card.above), default=0)
    for card in cards:
        if not card.above and card.below:  # data stand right before their first reader
            card.rank = min(line.target.rank for line in card.below) - 1
    ranks: list[list[_Card]] = [[] for _ in range(1 + max(card.rank for card in cards))]
    for card in cards:
        ranks[card.rank].append(card)
    for card in cards:
        lines, card.below = card.below, []
        passing: dict[tuple[int, int], _Card] = {}
        for line in sorted(lines, key=lambda line: line.target.rank):
            line.target.above.remove(line)
            source, top = card, line.top
            for rank in range(card.rank + 1, line.target.rank):
                if (line.top, rank) not in passing:
                    place = passing[line.top, rank] = _Card(rank=rank)
                    ranks[rank].append(place)
                    _connect(source, top, place)
                source, top = passing[line.top, rank], 0
            _connect(source, top, line.target)
    return ranks


def _order(ranks: list[list[_Card]]) -> None:
    """Orders each rank by the middle of what its cards are connected to, there and back, keeping the best of all."""

    def sort(rank: list[_Card], neighbours: Callable[[_Card], list[_Card]]) -> None:
        def middle(card: _Card) -> float:
            places = [at[near] for near in neighbours(card)]
            return sum(places) / len(places) if places else own[card]

        own = {card: i for i, card in enumerate(rank)}
        rank.sort(key=middle)
        at.update((card, i) for i, card in enumerate(rank))

    at = {card: i for rank in ranks for i, card in enumerate(rank)}
    best, fewest = [list(rank) for rank in ranks], _crossings(ranks, at)
    for _ in range(12):
        if fewest == 0:
            break
        for rank in ranks[1:]:
            sort(rank, lambda card: [line.source for line in card.above])
        for rank in reversed(ranks[:-1]):
            sort(rank, lambda card: [line.target for line in card.below])
        crossings = _crossings(ranks, at)
        if crossings < fewest:
            best, fewest = [list(rank) for rank in ranks], crossings
    ranks[:] = best


def _crossings(ranks: list[list[_Card]], at: Mapping[_Card, int]) -> int:
    total = 0
    for rank in ranks:
        seen: list[int] = []
        for ends in sorted((at[line.source], at[line.target]) for card in rank for line in card.below):
            total += len(seen) - bisect_right(seen, ends[1])
            insort(seen, ends[1])
    return total


# ---- places


def _place(ranks: list[list[_Card]], flat: bool) -> None:
    """Gives every card its place: ranks one after the other, cards across as near to their neighbours as can be."""

    at = {card: i for rank in ranks for i, card in enumerate(rank)}
    for card in at:  # its tops side by side, in the order of where they go
        goes = {line.top: at[line.target] for line in card.below}
        broad = [14.0 if flat else _text(label, LABEL)[0] + 18 for label in card.labels]
        edge = -sum(broad) / 2
        card.broad = max(card.size[1 if flat else 0], sum(broad))
        card.ports = [0.0] * max(1, len(broad))
        for top in sorted(range(len(broad)), key=lambda top: goes.get(top, len(at))):
            card.ports[top] = edge + broad[top] / 2
            edge += broad[top]
        if card.rows and not flat:
            card.size = max(card.size[0], 2 * max(map(abs, card.ports)) + 2 * MARGIN), card.size[1]
    for turn in range(24):
        down = turn % 2 == 0
        for rank in ranks if down else reversed(ranks):
            wanted, weights = [], []
            for card in rank:
                pulls = [(_from(line), _pull(line)) for line in card.above]
                if turn:
                    pulls += [(line.target.across - line.source.ports[line.top], _pull(line)) for line in card.below]
                ahead = card.above if down else card.below
                if len(ahead) == 1 and _alone(ahead[0]):  # a link of a chain goes where the chain goes
                    pulls = [(_from(ahead[0]) if down else ahead[0].target.across, 9.0)]
                weight = sum(pull for _, pull in pulls)
                wanted.append(sum(x * pull for x, pull in pulls) / weight if weight else card.across)
                weights.append(weight or 0.01)
            apart = [(a.broad + b.broad) / 2 + _room(a, b) for a, b in pairwise(rank)]
            for card, across in zip(rank, _spread(wanted, weights, apart), strict=True):
                card.across = across
    for rank in ranks:  # a card's lines come in side by side, in the order of where they are from
        for card in rank:
            lines = sorted(card.above, key=_from)
            room = min(18.0, 0.7 * (card.size[1] if flat else card.size[0]) / max(1, len(lines)))
            for i, line in enumerate(lines):
                line.enters = room * (i - (len(lines) - 1) / 2)
    deep, start = 0 if flat else 1, 0.0
    for rank in ranks:
        end = start + max(card.size[deep] for card in rank)
        for card in rank:
            if not card.rows:  # a line goes straight past the cards of a rank
                card.size = (end - start, 0.0) if flat else (0.0, end - start)
            card.along = start + card.size[deep] / 2
            card.until = max(end, start + card.size[deep] + _stem(card, flat))
        bends = max((abs(_from(line) - _to(line)) for card in rank for line in card.below), default=0.0)
        start = max(card.until for card in rank) + 14 + min(40.0, bends / 8)


def _stem(card: _Card, flat: bool) -> float:
    """How far lines go straight from a card, past their labels."""
    longest = max((_text(label, LABEL)[0] for label in card.labels if label), default=0.0)
    return (longest + 12 if flat else STEM) if longest else 0.0


def _alone(line: _Line) -> bool:
    """Whether nothing else leaves where it leaves, nor enters where it enters."""
    return len(line.source.below) == len(line.target.above) == 1


def _pull(line: _Line) -> float:
    """How much a line wants to be straight: the more, the longer the way that it is a part of."""
    return (1.0, 3.0, 9.0)[(not line.source.rows) + (not line.target.rows)]


def _room(a: _Card, b: _Card) -> float:
    return BETWEEN if a.rows or b.rows else BETWEEN * 0.6


def _spread(wanted: Sequence[float], weights: Sequence[float], apart: Sequence[float]) -> list[float]:
    """The places nearest to the wanted ones (least squares) of which each is so far behind the one before it.

    Without the distances that is an isotonic regression: where two are in the wrong order, they share their mean.
    """
    offsets = [0.0]
    for distance in apart:
        offsets.append(offsets[-1] + distance)
    blocks: list[list[float]] = []  # mean, weight, how many
    for place, weight, offset in zip(wanted, weights, offsets, strict=True):
        blocks.append([place - offset, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, weight, count = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * weight) / (last[1] + weight)
            last[1] += weight
            last[2] += count
    means = [mean for mean, _, count in blocks for _ in range(int(count))]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _from(line: _Line) -> float:
    return line.source.across + line.source.ports[line.top]


def _to(line: _Line) -> float:
    return line.target.across + line.enters


# ---- painting


def _paint(ranks: list[list[_Card]], path: Path, flat: bool, title: str) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    cards = [card for rank in ranks for card in rank]

    def spot(along: float, across: float) -> tuple[float, float]:
        return (along, -across) if flat else (across, -along)

    boxes = []
    for card in cards:
        x, y = spot(card.along, card.across)
        w, h = (card.size[0] / 2, card.broad / 2) if flat else (card.broad / 2, card.size[1] / 2)
        w, h = max(w, card.size[0] / 2), max(h, card.size[1] / 2)
        stem = _stem(card, flat)
        boxes.append((x - w, y - h - (0 if flat else stem), x + w + (stem if flat else 0), y + h))
    left, low = (min(box[i] for box in boxes) - 12 for i in (0, 1))
    right, high = (max(box[i] for box in boxes) + 12 for i in (2, 3))
    high += 24 if title else 0
    width, height = right - left, high - low
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(left, right), ylim=(low, high))
    axes.set_axis_off()
    if title:
        axes.text(left + 12, high - 18, _letters(title), size=11, weight="bold", color="#333333", parse_math=False)
    for card in cards:
        _paint_lines(axes, card, spot, flat)
    for card in cards:
        if card.rows:
            _paint_card(axes, card, *spot(card.along, card.across))
            _paint_labels(axes, card, spot, flat)
    pixels = 150.0
    while max(width, height) / 72 * pixels > 60000 or width * height * (pixels / 72) ** 2 > 2e8:  # what can be drawn
        pixels /= 2
    try:
        with rc_context({"svg.hashsalt": "seqclf", "font.family": ["DejaVu Sans"]}):
            figure.savefig(path, dpi=pixels, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise CaffeFormatError(f"{path}: can't be written ({error.strerror or error})") from None


def _paint_lines(axes: Any, card: _Card, spot: Callable[[float, float], tuple[float, float]], flat: bool) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Curve

    deep, colour = 0 if flat else 1, "#8794a1"
    codes = [Curve.MOVETO, Curve.LINETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4, Curve.LINETO]
    for line in card.below:
        x, y, target = _from(line), _to(line), line.target
        start, end = (target.along + part * target.size[deep] for part in (-0.5, 0.5))
        if target.rows:  # up to the arrow's tip, else past the rank
            axes.add_patch(
                Polygon([spot(start - 6, y - 2.6), spot(start - 6, y + 2.6), spot(start, y)], fc=colour, lw=0)
            )
            start = end = start - 5
        middle = (card.until + start) / 2
        points = [
            (card.along + card.size[deep] / 2, x),
            (card.until, x),
            (middle, x),
            (middle, y),
            (start, y),
            (end, y),
        ]
        axes.add_patch(PathPatch(Curve([spot(*at) for at in points], codes), fill=False, ec=colour, lw=1.0))


def _paint_card(axes: Any, card: _Card, x: float, y: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    width, height = card.size
    left, top = x - width / 2, y + height / 2
    fill, outline = KINDS[card.rows[0][2]]
    round_box: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=4", "linewidth": 1.1}
    axes.add_patch(FancyBboxPatch((left, y - height / 2), width, height, fc=fill, ec=outline, zorder=2, **round_box))
    for i, (name, words, kind) in enumerate(card.rows):
        at = top - ROW * i
        if i:
            axes.plot([left, left + width], [at, at], color=outline, linewidth=0.5, alpha=0.6, zorder=3)
        text = {"zorder": 4, "ha": "center", "va": "center", "parse_math": False}
        axes.text(x, at - 8.5, name, size=NAME if not i else NAME - 1, weight="bold", color="#222222", **text)
        axes.text(x, at - 18, words, size=DETAIL if not i else DETAIL - 0.5, color=KINDS[kind][1], **text)


def _paint_labels(axes: Any, card: _Card, spot: Callable[[float, float], tuple[float, float]], flat: bool) -> None:
    behind = {"boxstyle": "square,pad=0.15", "fc": "white", "ec": "none"}
    end = card.along + card.size[0 if flat else 1] / 2
    for label, port in zip(card.labels, card.ports, strict=False):
        x, y = spot(end + (6 if flat else 9), card.across + port)
        kind = {"ha": "left" if flat else "center", "va": "center", "size": LABEL, "parse_math": False}
        if label:
            axes.text(x, y, label, color="#4a5560", bbox=behind, zorder=1.5, **kind)


def _size(card: _Card) -> tuple[float, float]:
    if not card.rows:
        return 0.0, 0.0
    words = [_text(text, NAME if j == 0 else DETAIL, j == 0)[0] for row in card.rows for j, text in enumerate(row[:2])]
    return max(64.0, *words) + 2 * MARGIN, ROW * len(card.rows)


def _short(text: str) -> str:
    return _letters(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def _letters(text: str) -> str:
    """The text, with a box for what the picture's font has no letter for."""
    return "".join(c if ord(c) in _font() else "□" for c in text)


@cache
def _font() -> Any:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()


@cache
def _text(text: str, size: float, bold: bool = False) -> tuple[float, float]:
    """The width and height of a line of text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    width, height, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return float(width), float(height)
