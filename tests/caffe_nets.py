"""Prototxts of published Caffe nets, written with a small builder.

Each function returns a ``Prototxt``, whose ``str`` is the text of the file. ``scale`` divides the numbers of channels
and hidden units, but not of classes, for fast tests. ``train`` replaces data layers by ``DummyData`` and adds losses.
"""

from __future__ import annotations

from typing import Any

Fields = dict[str, Any]

ENUMS = {"backend", "engine", "norm", "norm_region", "normalization", "operation", "phase", "pool", "share_mode"}
V1_NAMES = {"ReLU": "RELU", "TanH": "TANH", "SoftmaxWithLoss": "SOFTMAX_LOSS"}
LEARNED = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]
"""The ``param`` entries of weights and biases in nearly all nets of the model zoo."""
TRAIN, TEST = {"phase": "TRAIN"}, {"phase": "TEST"}


class Enum(str):
    """A value that is written without quotes, like the fields in ``ENUMS``."""


def text(fields: Fields, indent: str = "") -> str:
    """Returns protobuf's text format: lists are repeated fields, dicts are messages."""
    lines = []
    for key, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, dict):
                lines.append(f"{indent}{key} {{\n{text(value, indent + '  ')}{indent}}}\n")
            elif isinstance(value, bool):
                lines.append(f"{indent}{key}: {str(value).lower()}\n")
            else:
                quoted = isinstance(value, str) and not isinstance(value, Enum) and key not in ENUMS
                written = f'"{value}"' if quoted else value
                lines.append(f"{indent}{key}: {written}\n")
    return "".join(lines)


class Prototxt:
    """A net as a list of layers. Each method adds one or a few layers and returns the name of the last top."""

    def __init__(self, name: str, scale: int = 1, learned: list[Fields] | None = None, **filler: Any) -> None:
        """``filler``: fields of the default weight filler; xavier if none are given."""
        self.name, self.scale, self.learned = name, scale, LEARNED if learned is None else learned
        self.filler = filler or {"type": "xavier"}
        self.layers: list[Fields] = []

    def __str__(self) -> str:
        return text({"name": self.name, "layer": self.layers})

    def v1(self) -> str:
        """The text in the V1 format of 2014: ``layers`` with enumerated types, ``blobs_lr``, ``input_dim``."""
        head: Fields = {"name": self.name}
        layers = []
        for layer in self.layers:
            if layer["type"] == "Input":
                shapes = layer["input_param"]["shape"]
                head |= {"input": layer["top"], "input_dim": [n for shape in shapes for n in shape["dim"]]}
                continue
            old = {key: value for key, value in layer.items() if key not in ("param", "transform_param")}
            name = layer["type"]
            split = "".join(f"_{c}" if c.isupper() else c for c in name).lstrip("_").upper()
            old["type"] = Enum(V1_NAMES.get(name, name if name.isupper() else split))
            for new, was in (("lr_mult", "blobs_lr"), ("decay_mult", "weight_decay"), ("name", "param")):
                if values := [spec[new] for spec in layer.get("param", ()) if new in spec]:
                    old[was] = values
            if "transform_param" in layer:
                old["data_param"] = layer["data_param"] | layer["transform_param"]
            layers.append(old)
        return text(head) + text({"layers": layers})

    def wide(self, channels: int) -> int:
        return max(1, channels // self.scale)

    def layer(self, type: str, name: str, bottoms: str | list[str], tops: str | list[str] = "", **fields: Any) -> str:
        """Adds a layer of any type. ``tops`` defaults to its name. Fields that are None are omitted."""
        tops = tops or name
        kept = {key: value for key, value in fields.items() if value is not None and value != []}
        self.layers.append({"name": name, "type": type, "bottom": bottoms, "top": tops, **kept})
        return tops if isinstance(tops, str) else tops[0]

    # ---- data

    def inputs(self, **shapes: tuple[int, ...]) -> str:
        """Adds one ``Input`` layer for all inputs, as Caffe does for the older ``input:`` fields."""
        dims = [{"dim": list(shape)} for shape in shapes.values()]
        return self.layer("Input", "input", [], list(shapes), input_param={"shape": dims})

    def dummy(self, name: str, *tops: tuple[str, tuple[int, ...], float], **fields: Any) -> str:
        """Adds ``DummyData``. Tops (name, shape, limit) are uniform below the limit, or normal if it is 0."""
        fillers = [
            {"type": "uniform", "min": 0, "max": upto} if upto else {"type": "gaussian", "std": 1}
            for _, _, upto in tops
        ]
        param = {"shape": [{"dim": list(shape)} for _, shape, _ in tops], "data_filler": fillers}
        return self.layer("DummyData", name, [], [top for top, _, _ in tops], dummy_data_param=param, **fields)

    def images(self, train: bool, shape: tuple[int, ...], classes: int = 1000) -> str:
        """Adds ``data``, and in training ``label``."""
        if not train:
            return self.inputs(data=shape)
        return self.dummy("data", ("data", shape, 0), ("label", shape[:1], classes - 0.001))

    # ---- layers

    def conv(self, name: str, bottom: str, channels: int, kernel: int, group: int = 1, **fields: Any) -> str:
        """``fields`` are those of ``convolution_param``; ``params`` are the layer's ``param`` entries."""
        params = fields.pop("params", self.learned[: 1 if fields.get("bias_term") is False else 2])
        window = {"num_output": channels, "kernel_size": kernel, **({"group": group} if group > 1 else {})}
        filler = {"weight_filler": self.filler} | ({} if fields.get("bias_term") is False else {"bias_filler": BIAS})
        param = {**window, **filler, **fields}
        return self.layer("Convolution", name, bottom, param=params, convolution_param=param)

    def fc(self, name: str, bottom: str, outputs: int, axis: int = 1, **fields: Any) -> str:
        """``fields`` are those of the layer."""
        param = {"num_output": outputs, "weight_filler": self.filler, "bias_filler": BIAS, "axis": axis}
        if axis == 1:
            del param["axis"]
        return self.layer("InnerProduct", name, bottom, inner_product_param=param, **{"param": self.learned} | fields)

    def relu(self, name: str, bottom: str) -> str:
        return self.layer("ReLU", name, bottom, bottom)

    def pool(self, name: str, bottom: str, kernel: int = 0, stride: int = 0, pad: int = 0, method: str = "MAX") -> str:
        """Without a kernel, pools the whole image."""
        window: Fields = {"kernel_size": kernel, "stride": stride} if kernel else {"global_pooling": True}
        if pad:
            window["pad"] = pad
        return self.layer("Pooling", name, bottom, pooling_param={"pool": method, **window})

    def lrn(self, name: str, bottom: str) -> str:
        return self.layer("LRN", name, bottom, lrn_param={"local_size": 5, "alpha": 0.0001, "beta": 0.75})

    def dropout(self, name: str, bottom: str, ratio: float = 0.5) -> str:
        return self.layer("Dropout", name, bottom, bottom, dropout_param={"dropout_ratio": ratio})

    def head(self, bottom: str, train: bool) -> None:
        """Adds probabilities; in training the loss, and in the TEST phase the accuracy."""
        if train:
            self.layer("Accuracy", "accuracy", [bottom, "label"], include=TEST)
            self.layer("SoftmaxWithLoss", "loss", [bottom, "label"])
        else:
            self.layer("Softmax", "prob", bottom)


BIAS = {"type": "constant", "value": 0.1}


# ---- classifiers of images


def _krizhevsky(net: Prototxt, x: str, norm_first: bool, classes: int) -> str:
    """The eight layers of AlexNet. In CaffeNet, pooling precedes normalization."""
    wide = net.wide
    for i, (channels, kernel, group, more) in enumerate(
        [
            (96, 11, 1, {"stride": 4}),
            (256, 5, 2, {"pad": 2}),
            (384, 3, 1, {"pad": 1}),
            (384, 3, 2, {"pad": 1}),
            (256, 3, 2, {"pad": 1}),
        ],
        1,
    ):
        x = net.relu(f"relu{i}", net.conv(f"conv{i}", x, wide(channels), kernel, group, **more))
        if i < 3 and norm_first:
            x = net.lrn(f"norm{i}", x)
        if i in (1, 2, 5):
            x = net.pool(f"pool{i}", x, 3, 2)
        if i < 3 and not norm_first:
            x = net.lrn(f"norm{i}", x)
    for i in (6, 7):
        x = net.relu(f"relu{i}", net.fc(f"fc{i}", x, wide(4096)))
        x = net.dropout(f"drop{i}", x)
    return net.fc("fc8", x, classes)


def alexnet(scale: int = 1, batch: int = 10, train: bool = False, classes: int = 1000) -> Prototxt:
    net = Prototxt("AlexNet", scale)
    net.head(_krizhevsky(net, net.images(train, (batch, 3, 227, 227), classes), True, classes), train)
    return net


def caffenet(scale: int = 1, batch: int = 10, train: bool = False, classes: int = 1000) -> Prototxt:
    net = Prototxt("CaffeNet", scale)
    net.head(_krizhevsky(net, net.images(train, (batch, 3, 227, 227), classes), False, classes), train)
    return net


def caffenet_train_val() -> Prototxt:
    """CaffeNet with data layers that read databases."""
    net = Prototxt("CaffeNet", 1, type="gaussian", std=0.01)
    for phase, mirror, batch, source in ((TRAIN, True, 256, "train_lmdb"), (TEST, False, 50, "val_lmdb")):
        transform = {"mirror": mirror, "crop_size": 227, "mean_file": "mean.binaryproto"}
        data = {"source": source, "batch_size": batch, "backend": "LMDB"}
        tops = ["data", "label"]
        net.layer("Data", "data", [], tops, include=phase, transform_param=transform, data_param=data)
    net.head(_krizhevsky(net, "data", False, 1000), True)
    return net


def vgg16(scale: int = 1, batch: int = 10, train: bool = False, classes: int = 1000, size: int = 224) -> Prototxt:
    net = Prototxt("VGG_ILSVRC_16_layers", scale)
    x = _vgg(net, net.images(train, (batch, 3, size, size), classes))
    for i in (6, 7):
        x = net.relu(f"relu{i}", net.fc(f"fc{i}", x, net.wide(4096)))
        x = net.dropout(f"drop{i}", x)
    net.head(net.fc("fc8", x, classes), train)
    return net


def _vgg(net: Prototxt, x: str, pad: int = 1) -> str:
    for i, (channels, layers) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for j in range(1, layers + 1):
            first = (i, j) == (1, 1)
            x = net.conv(f"conv{i}_{j}", x, net.wide(channels), 3, pad=pad if first else 1)
            x = net.relu(f"relu{i}_{j}", x)
        x = net.pool(f"pool{i}", x, 2, 2)
    return x


INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Channels of GoogLeNet's modules: 1x1; reduction and 3x3; reduction and 5x5; projection after pooling."""


def googlenet(scale: int = 1, batch: int = 10, train: bool = False, classes: int = 1000) -> Prototxt:
    """GoogLeNet, with three losses in training."""
    net = Prototxt("GoogleNet", scale)

    def unit(name: str, bottom: str, channels: int, kernel: int, **more: int) -> str:
        top = net.conv(name, bottom, net.wide(channels), kernel, **more)
        return net.relu(name.rsplit("/", 1)[0] + "/relu_" + name.rsplit("/", 1)[1], top)

    x = unit("conv1/7x7_s2", net.images(train, (batch, 3, 224, 224), classes), 64, 7, pad=3, stride=2)
    x = net.lrn("pool1/norm1", net.pool("pool1/3x3_s2", x, 3, 2))
    x = unit("conv2/3x3", unit("conv2/3x3_reduce", x, 64, 1), 192, 3, pad=1)
    x = net.pool("pool2/3x3_s2", net.lrn("conv2/norm2", x), 3, 2)
    for name, (one, reduce3, three, reduce5, five, proj) in INCEPTION.items():
        block = f"inception_{name}"
        branches = [
            unit(f"{block}/1x1", x, one, 1),
            unit(f"{block}/3x3", unit(f"{block}/3x3_reduce", x, reduce3, 1), three, 3, pad=1),
            unit(f"{block}/5x5", unit(f"{block}/5x5_reduce", x, reduce5, 1), five, 5, pad=2),
            unit(f"{block}/pool_proj", net.pool(f"{block}/pool", x, 3, 1, 1), proj, 1),
        ]
        x = net.layer("Concat", f"{block}/output", branches)
        if name in ("3b", "4e"):
            x = net.pool(f"pool{name[0]}/3x3_s2", x, 3, 2)
        if train and name in ("4a", "4d"):
            loss = "loss1" if name == "4a" else "loss2"
            side = unit(f"{loss}/conv", net.pool(f"{loss}/ave_pool", x, 5, 3, method="AVE"), 128, 1)
            side = net.dropout(
                f"{loss}/drop_fc", net.relu(f"{loss}/relu_fc", net.fc(f"{loss}/fc", side, net.wide(1024))), 0.7
            )
            logits = net.fc(f"{loss}/classifier", side, classes)
            net.layer("SoftmaxWithLoss", f"{loss}/loss", [logits, "label"], f"{loss}/{loss}", loss_weight=0.3)
            net.layer("Accuracy", f"{loss}/top-1", [logits, "label"], include=TEST)
    x = net.dropout("pool5/drop_7x7_s1", net.pool("pool5/7x7_s1", x, 7, 1, method="AVE"), 0.4)
    logits = net.fc("loss3/classifier", x, classes)
    if train:
        net.layer("SoftmaxWithLoss", "loss3/loss3", [logits, "label"], "loss3/loss3", loss_weight=1)
        top5 = {"accuracy_param": {"top_k": 5}}
        net.layer("Accuracy", "loss3/top-5", [logits, "label"], include=TEST, **top5)
    else:
        net.layer("Softmax", "prob", logits)
    return net


def resnet50(scale: int = 1, batch: int = 1, train: bool = False, classes: int = 1000, size: int = 224) -> Prototxt:
    net = Prototxt("ResNet-50", scale, [{"lr_mult": 1}] * 2, type="msra")

    def unit(name: str, bottom: str, channels: int, kernel: int, relu: bool = True, **more: Any) -> str:
        """Adds a convolution, and BatchNorm and Scale in place."""
        kind, branch = name[:3], name[3:]
        conv, bn, scale = (
            (name, "bn_conv1", "scale_conv1") if name == "conv1" else (name, f"bn{branch}", f"scale{branch}")
        )
        x = net.conv(conv, bottom, net.wide(channels), kernel, **({} if kind == "con" else {"bias_term": False}) | more)
        net.layer("BatchNorm", bn, x, x)
        net.layer("Scale", scale, x, x, scale_param={"bias_term": True})
        return net.relu(f"{conv}_relu", x) if relu else x

    x = unit("conv1", net.images(train, (batch, 3, size, size), classes), 64, 7, pad=3, stride=2)
    x = net.pool("pool1", x, 3, 2)
    for stage, (channels, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 2):
        for i in range(blocks):
            name = f"res{stage}{'abcdef'[i]}"
            stride = 2 if i == 0 and stage > 2 else 1
            short = unit(f"{name}_branch1", x, 4 * channels, 1, relu=False, stride=stride) if i == 0 else x
            y = unit(f"{name}_branch2a", x, channels, 1, stride=stride)
            y = unit(f"{name}_branch2b", y, channels, 3, pad=1)
            y = unit(f"{name}_branch2c", y, 4 * channels, 1, relu=False)
            x = net.relu(f"{name}_relu", net.layer("Eltwise", name, [short, y]))
    net.head(net.fc("fc1000", net.pool("pool5", x, -(-size // 32), 1, method="AVE"), classes), train)
    return net


FIRES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
"""Channels after the squeeze layer of SqueezeNet's fire modules; both expand layers have four times as many."""


def squeezenet(scale: int = 1, batch: int = 1, train: bool = False, classes: int = 1000, size: int = 227) -> Prototxt:
    """SqueezeNet 1.1."""
    net = Prototxt("SqueezeNet", scale)

    def unit(name: str, bottom: str, channels: int, kernel: int, **more: int) -> str:
        folder, _, last = name.rpartition("/")
        top = net.conv(name, bottom, channels, kernel, **more)
        return net.relu(f"{folder}/relu_{last}" if folder else f"relu_{name}", top)

    x = net.images(train, (batch, 3, size, size), classes)
    x = net.pool("pool1", unit("conv1", x, net.wide(64), 3, stride=2), 3, 2)
    for i, channels in FIRES.items():
        x = unit(f"fire{i}/squeeze1x1", x, net.wide(channels), 1)
        expanded = [
            unit(f"fire{i}/expand1x1", x, net.wide(4 * channels), 1),
            unit(f"fire{i}/expand3x3", x, net.wide(4 * channels), 3, pad=1),
        ]
        x = net.layer("Concat", f"fire{i}/concat", expanded)
        if i in (3, 5):
            x = net.pool(f"pool{i}", x, 3, 2)
    x = net.pool("pool10", unit("conv10", net.dropout("drop9", x), classes, 1), method="AVE")
    net.head(x, train)
    return net


def nin(scale: int = 1, batch: int = 1, train: bool = False, classes: int = 1000) -> Prototxt:
    """Network in network: two 1x1 convolutions after each convolution, and average pooling of the whole image."""
    net = Prototxt("nin_imagenet", scale)
    x = net.images(train, (batch, 3, 224, 224), classes)
    for i, (channels, kernel, more) in enumerate(
        [(96, 11, {"stride": 4}), (256, 5, {"pad": 2}), (384, 3, {"pad": 1}), (1024, 3, {"pad": 1})]
    ):
        last = net.wide(channels) if i < 3 else classes
        x = net.relu(f"relu{i}", net.conv(f"conv{i + 1}", x, net.wide(channels), kernel, **more))
        x = net.relu(f"relu{i}a", net.conv(f"cccp{2 * i + 1}", x, net.wide(channels), 1))
        x = net.relu(f"relu{i}b", net.conv(f"cccp{2 * i + 2}", x, last, 1))
        if i == 2:
            x = net.dropout("drop", net.pool("pool3", x, 3, 2))
        elif i < 2:
            x = net.pool(f"pool{i}", x, 3, 2)
    net.head(net.pool("pool4", x, method="AVE"), train)
    return net


def lenet(scale: int = 1, batch: int = 64, train: bool = True, classes: int = 10) -> Prototxt:
    """``lenet_train_test``, with data, accuracy and loss by phase in training."""
    net = Prototxt("LeNet", scale, [{"lr_mult": 1}, {"lr_mult": 2}])
    if train:
        label = classes - 0.001
        for phase, n in ((TRAIN, batch), (TEST, 100)):
            net.dummy("mnist", ("data", (n, 1, 28, 28), 0), ("label", (n,), label), include=phase)
    else:
        net.inputs(data=(batch, 1, 28, 28))
    x = net.pool("pool1", net.conv("conv1", "data", net.wide(20), 5, stride=1), 2, 2)
    x = net.pool("pool2", net.conv("conv2", x, net.wide(50), 5, stride=1), 2, 2)
    net.head(net.fc("ip2", net.relu("relu1", net.fc("ip1", x, net.wide(500))), classes), train)
    return net


# ---- other tasks


def fcn8s(scale: int = 1, batch: int = 1, train: bool = False, classes: int = 21, size: int = 500) -> Prototxt:
    """FCN-8s, which classifies pixels: VGG-16 as convolutions, with scores at three scales upsampled to the image."""
    net = Prototxt("fcn8s", scale)
    image = (batch, 3, size, size)
    if train:
        net.dummy("data", ("data", image, 0), ("label", (batch, 1, size, size), classes - 0.001))
    else:
        net.inputs(data=image)

    def up(name: str, bottom: str, kernel: int, stride: int) -> str:
        filler = {"type": "bilinear"}
        window = {"num_output": classes, "group": classes, "kernel_size": kernel, "stride": stride, "bias_term": False}
        frozen = [{"lr_mult": 0}]
        return net.layer(
            "Deconvolution", name, bottom, param=frozen, convolution_param={**window, "weight_filler": filler}
        )

    def crop(name: str, bottom: str, like: str, offset: int) -> str:
        return net.layer("Crop", name, [bottom, like], crop_param={"axis": 2, "offset": offset})

    x = _vgg(net, "data", pad=100)
    x = net.dropout("drop6", net.relu("relu6", net.conv("fc6", x, net.wide(4096), 7, pad=0)))
    x = net.dropout("drop7", net.relu("relu7", net.conv("fc7", x, net.wide(4096), 1, pad=0)))
    x = up("upscore2", net.conv("score_fr", x, classes, 1, pad=0), 4, 2)
    for i, offset, kernel, stride, then in ((4, 5, 4, 2, "upscore_pool4"), (3, 9, 16, 8, "upscore8")):
        score = crop(f"score_pool{i}c", net.conv(f"score_pool{i}", f"pool{i}", classes, 1, pad=0), x, offset)
        x = up(
            then, net.layer("Eltwise", f"fuse_pool{i}", [x, score], eltwise_param={"operation": "SUM"}), kernel, stride
        )
    x = crop("score", x, "data", 31)
    if train:
        param = {"ignore_label": 255, "normalize": False}
        net.layer("SoftmaxWithLoss", "loss", [x, "label"], loss_param=param)
    return net


def siamese(scale: int = 1, batch: int = 64, train: bool = True, similar: float = 1.999) -> Prototxt:
    """Two LeNets with shared parameters and a contrastive loss."""
    net = Prototxt("mnist_siamese_train_test", scale)
    pair = (batch, 2, 28, 28)
    if train:
        net.dummy("pair_data", ("pair_data", pair, 0), ("sim", (batch,), similar))
    else:
        net.inputs(pair_data=pair)
    net.layer("Slice", "slice_pair", "pair_data", ["data", "data_p"], slice_param={"slice_dim": 1, "slice_point": 1})

    for p in ("", "_p"):

        def shared(name: str) -> list[Fields]:
            return [{"name": f"{name}_w", "lr_mult": 1}, {"name": f"{name}_b", "lr_mult": 2}]

        x = net.conv(f"conv1{p}", f"data{p}", net.wide(20), 5, stride=1, params=shared("conv1"))
        x = net.pool(f"pool1{p}", x, 2, 2)
        x = net.conv(f"conv2{p}", x, net.wide(50), 5, stride=1, params=shared("conv2"))
        x = net.fc(f"ip1{p}", net.pool(f"pool2{p}", x, 2, 2), net.wide(500), param=shared("ip1"))
        x = net.fc(f"ip2{p}", net.relu(f"relu1{p}", x), 10, param=shared("ip2"))
        net.fc(f"feat{p}", x, 2, param=shared("feat"))
    if train:
        param = {"margin": 1}
        net.layer("ContrastiveLoss", "loss", ["feat", "feat_p", "sim"], contrastive_loss_param=param)
    return net


def autoencoder(scale: int = 1, batch: int = 100, train: bool = True) -> Prototxt:
    """An autoencoder of digits with 30 features. One of its two losses has weight 0."""
    hidden = [max(2, n // scale) for n in (1000, 500, 250, 30)]
    net = Prototxt("MNISTAutoencoder", scale, [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 1, "decay_mult": 0}])
    if train:
        net.dummy("data", ("data", (batch, 1, 28, 28), 1))
    else:
        net.inputs(data=(batch, 1, 28, 28))
    flat = x = net.layer("Flatten", "flatdata", "data")
    widths = [*hidden, *hidden[-2::-1], 784]
    for i, outputs in enumerate(widths):
        name = f"encode{i + 1}" if i < 4 else f"decode{8 - i}"
        net.filler = {"type": "gaussian", "std": 1, "sparse": min(15, outputs)}
        x = net.fc(name, x, outputs)
        if i not in (3, 7):
            x = net.layer("Sigmoid", f"{name}neuron", x)
    if train:
        weights = {"loss_weight": 1}
        net.layer("SigmoidCrossEntropyLoss", "loss", [x, flat], "cross_entropy_loss", **weights)
    x = net.layer("Sigmoid", "decode1neuron", x)
    if train:
        net.layer("EuclideanLoss", "l2_loss", [x, flat], "l2_error", loss_weight=0)
    return net


# ---- LRCN


def _lrcn_features(net: Prototxt, x: str) -> str:
    """The layers up to fc6, a hybrid of CaffeNet and the net of Zeiler and Fergus."""
    wide = net.wide
    for i, (channels, kernel, group, more) in enumerate(
        [
            (96, 7, 1, {"stride": 2}),
            (384, 5, 2, {"stride": 2}),
            (512, 3, 1, {"pad": 1}),
            (512, 3, 2, {"pad": 1}),
            (384, 3, 2, {"pad": 1}),
        ],
        1,
    ):
        x = net.relu(f"relu{i}", net.conv(f"conv{i}", x, wide(channels), kernel, group, **more))
        if i in (1, 2, 5):
            x = net.pool(f"pool{i}", x, 3, 2)
        if i < 3:
            x = net.lrn(f"norm{i}", x)
    return net.dropout("drop6", net.relu("relu6", net.fc("fc6", x, wide(4096))), 0.9)


def lrcn_frame(scale: int = 1, batch: int = 1, train: bool = False, classes: int = 101) -> Prototxt:
    """LRCN's single-frame net."""
    net = Prototxt("single_frame_model", scale)
    x = _lrcn_features(net, net.images(train, (batch, 3, 227, 227), classes))
    x = net.dropout("drop7", net.relu("relu7", net.fc("fc7", x, net.wide(4096))), 0.9)
    net.head(net.fc("fc8-ucf", x, classes), train)
    return net


def lrcn(
    scale: int = 1, steps: int = 16, streams: int = 10, train: bool = False, classes: int = 101, size: int = 227
) -> Prototxt:
    """LRCN for activity recognition: time-major frames; ``clip_markers`` are 0 where a clip begins."""
    net = Prototxt("lstm_joints", scale)
    frames = steps * streams
    if train:
        labels = ("label", (frames,), classes - 0.001)
        net.dummy("data", ("data", (frames, 3, size, size), 0), labels, ("clip_markers", (frames,), 1.999))
    else:
        net.inputs(data=(frames, 3, size, size), clip_markers=(frames, 1, 1, 1))

    def reshaped(name: str, bottom: str, *dims: int) -> str:
        return net.layer("Reshape", name, bottom, reshape_param={"shape": {"dim": list(dims)}})

    x = reshaped("fc6-reshape", _lrcn_features(net, "data"), steps, streams, net.wide(4096))
    cont = "clip_markers"
    if train:  # markers are random from 0 to 2, which a threshold makes 0 or 1
        cont = net.layer("Threshold", "markers", cont, threshold_param={"threshold": 0.5})
    cont = reshaped("reshape-cm", cont, steps, streams)
    filler = {"type": "uniform", "min": -0.1, "max": 0.1}
    recurrent = {"num_output": net.wide(256), "weight_filler": filler, "bias_filler": {"type": "constant", "value": 0}}
    x = net.layer("LSTM", "lstm1", [x, cont], recurrent_param=recurrent)
    x = net.fc("fc8-final", net.dropout("lstm1-drop", x), classes, axis=2)
    if train:
        label = reshaped("reshape-label", "label", steps, streams)
        axis = {"axis": 2}
        net.layer("SoftmaxWithLoss", "loss", [x, label], softmax_param=axis)
        net.layer("Accuracy", "accuracy", [x, label], accuracy_param=axis, include=TEST)
    else:
        net.layer("Softmax", "probs", x, softmax_param={"axis": 2})
    return net


def captioner(
    scale: int = 1, steps: int = 20, streams: int = 100, train: bool = False, words: int = 8801, features: int = 1000
) -> Prototxt:
    """LRCN's image captioner with two LSTMs. The second also reads the image (``lrcn.prototxt``).

    The image's features are an input; in training CaffeNet computes them.
    """
    net = Prototxt("lrcn_caffenet_factored", scale)
    sentence = (steps, streams)
    if train:
        image = net.dummy("data", ("data", (streams, 3, 227, 227), 0))
        values = (*sentence, words)
        net.dummy(
            "sentences", ("cont_values", sentence, 1.999), ("input_values", values, 0), ("target_values", values, 0)
        )
        net.layer("Threshold", "cont", "cont_values", "cont_sentence", threshold_param={"threshold": 0.5})
        for which in ("input", "target"):
            net.layer("ArgMax", f"{which}_words", f"{which}_values", argmax_param={"axis": 2})
            net.layer("Flatten", f"{which}_flat", f"{which}_words", f"{which}_sentence")
        # words start at -1, which the loss ignores
        net.layer("Power", "target", "target_sentence", "target_sentence", power_param={"shift": -1})
        static = _krizhevsky(net, image, False, features)
    else:
        static = "image_features"
        net.inputs(cont_sentence=sentence, input_sentence=sentence, image_features=(streams, features))
    uniform = {"type": "uniform", "min": -0.08, "max": 0.08}
    hidden = net.wide(1000)
    embed = {"bias_term": False, "input_dim": words, "num_output": hidden, "weight_filler": uniform}
    once = [{"lr_mult": 1}]
    recurrent = {"num_output": hidden, "weight_filler": uniform, "bias_filler": {"type": "constant", "value": 0}}
    x = net.layer("Embed", "embedding", "input_sentence", "embedded_input_sentence", param=once, embed_param=embed)
    x = net.layer("LSTM", "lstm1", [x, "cont_sentence"], recurrent_param=recurrent)
    x = net.layer("LSTM", "lstm2", [x, "cont_sentence", static], recurrent_param=recurrent)
    net.filler = uniform
    x = net.fc("predict", x, words, axis=2)
    axis = {"axis": 2}
    if train:
        bottoms = [x, "target_sentence"]
        ignore = {"ignore_label": -1}
        top = "cross_entropy_loss"
        net.layer("SoftmaxWithLoss", top, bottoms, loss_weight=20, loss_param=ignore, softmax_param=axis)
        net.layer("Accuracy", "accuracy", bottoms, include=TEST, accuracy_param={**axis, **ignore})
    else:
        net.layer("Softmax", "probs", x, softmax_param=axis)
    return net
