"""The table of layer types: every ``type`` that a prototxt may say, and the class that computes it."""

from __future__ import annotations

from seqclf.caffe.layers.accuracy import Accuracy
from seqclf.caffe.layers.base import Layer, Shape, Surroundings
from seqclf.caffe.layers.combine import ArgMax, BatchReindex, Eltwise, Filter, Parameter, Reduction, Softmax
from seqclf.caffe.layers.convolution import Convolution, Deconvolution, Im2col
from seqclf.caffe.layers.data import Data, DummyData, HDF5Data, HDF5Output, ImageData, Input, MemoryData, Python
from seqclf.caffe.layers.inner_product import Embed, InnerProduct
from seqclf.caffe.layers.loss import (
    ContrastiveLoss,
    EuclideanLoss,
    HingeLoss,
    InfogainLoss,
    MultinomialLogisticLoss,
    SigmoidCrossEntropyLoss,
    SoftmaxWithLoss,
)
from seqclf.caffe.layers.lrn import LRN
from seqclf.caffe.layers.neuron import (
    BNLL,
    ELU,
    AbsVal,
    Clip,
    Dropout,
    Exp,
    Log,
    Power,
    PReLU,
    ReLU,
    Sigmoid,
    Swish,
    TanH,
    Threshold,
)
from seqclf.caffe.layers.normalize import MVN, BatchNorm
from seqclf.caffe.layers.pooling import SPP, Pooling
from seqclf.caffe.layers.recurrent import LSTM, RNN, LSTMUnit
from seqclf.caffe.layers.scale import Bias, Scale
from seqclf.caffe.layers.shape import Concat, Crop, Flatten, Reshape, Silence, Slice, Split, Tile

LAYERS: dict[str, type[Layer]] = {
    # data
    "Data": Data,
    "DummyData": DummyData,
    "HDF5Data": HDF5Data,
    "HDF5Output": HDF5Output,
    "ImageData": ImageData,
    "Input": Input,
    "MemoryData": MemoryData,
    "Python": Python,
    # vision
    "Convolution": Convolution,
    "Deconvolution": Deconvolution,
    "Im2col": Im2col,
    "LRN": LRN,
    "Pooling": Pooling,
    "SPP": SPP,
    # products
    "Embed": Embed,
    "InnerProduct": InnerProduct,
    # recurrent
    "LSTM": LSTM,
    "LSTMUnit": LSTMUnit,
    "RNN": RNN,
    # element by element
    "AbsVal": AbsVal,
    "BNLL": BNLL,
    "Clip": Clip,
    "Dropout": Dropout,
    "ELU": ELU,
    "Exp": Exp,
    "Log": Log,
    "PReLU": PReLU,
    "Power": Power,
    "ReLU": ReLU,
    "Sigmoid": Sigmoid,
    "Swish": Swish,
    "TanH": TanH,
    "Threshold": Threshold,
    # normalisation, scale
    "BatchNorm": BatchNorm,
    "Bias": Bias,
    "MVN": MVN,
    "Scale": Scale,
    # shape
    "Concat": Concat,
    "Crop": Crop,
    "Flatten": Flatten,
    "Reshape": Reshape,
    "Silence": Silence,
    "Slice": Slice,
    "Split": Split,
    "Tile": Tile,
    # combination
    "ArgMax": ArgMax,
    "BatchReindex": BatchReindex,
    "Eltwise": Eltwise,
    "Filter": Filter,
    "Parameter": Parameter,
    "Reduction": Reduction,
    "Softmax": Softmax,
    # losses and figures
    "Accuracy": Accuracy,
    "ContrastiveLoss": ContrastiveLoss,
    "EuclideanLoss": EuclideanLoss,
    "HingeLoss": HingeLoss,
    "InfogainLoss": InfogainLoss,
    "MultinomialLogisticLoss": MultinomialLogisticLoss,
    "SigmoidCrossEntropyLoss": SigmoidCrossEntropyLoss,
    "SoftmaxWithLoss": SoftmaxWithLoss,
}

__all__ = ["LAYERS", "Layer", "Shape", "Surroundings"]
