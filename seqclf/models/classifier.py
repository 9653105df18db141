"""The model: preprocessing, a frame encoder, a temporal model and a head, with logits at every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqclf.batch import SeqclfError, valid_frames
from seqclf.models.contract import (
    State,
    build_part,
    can_stream,
    check_counts,
    check_encoded,
    check_result,
    check_sequences,
    declares,
)
from seqclf.models.encoder import Flatten
from seqclf.models.identity import Identity
from seqclf.models.preprocess import Normalize
from seqclf.models.refinement import Stage, join_states, softmax, split_state
from seqclf.models.trial import feature_size, hidden_size, state_example

Part = nn.Module | Callable[..., nn.Module]
"""A module, or a class or ``functools.partial`` that builds one from the sizes of what it reads."""


class FrameSequenceClassifier(nn.Module):
    """Classifies sequences of frames, with logits at every frame.

    Each part is a module, or a class (or ``functools.partial`` of one) that is called with the sizes it reads:
    ``preprocess()``, ``encoder(frame_shape)``, ``temporal(D)``, ``head(H, num_classes)``.

    Args:
        preprocess: raw frames ``(..., *frame_shape)``, uint8 or float, to float frames of the same shape.
        encoder: frames ``(M, *frame_shape)`` to features ``(M, D)``.
        temporal: features ``(B, T, D)``, with is_first, state and lengths, to outputs ``(B, T, H)`` and a state. See
            ``seqclf.models.contract`` for what it declares, and ``seqclf.check_temporal`` to verify your own.
        head: outputs ``(..., H)`` to logits ``(..., K)``.
        frame_shape: the shape of one frame, ``(D,)`` or ``(C, H, W)``. It is required to build the encoder, and checked
            on every call if given.
        num_classes: K. It is required to build the head.
        chunk: the number of frames that the encoder processes at a time, to bound its memory. If the encoder is
            trained, each chunk is recomputed in the backward pass (``torch.utils.checkpoint``). Batch norm in training
            mode then normalises over a chunk. None for all frames at once.
        refine: the temporal models of refinement stages, for deep supervision as in MS-TCN (Farha and Gall 2019). Each
            stage reads the class probabilities of the previous stage, ``(B, T, K)``, and has its own head, so ``head``
            must be a class or function. The model returns the logits of the last stage, and the training loss is the
            sum of the losses of all stages.
        activation: maps logits to the input of the next stage: ``softmax`` of ``seqclf.models``, or ``torch.sigmoid``
            for multi-label data.
        channels_last: whether the encoder's images are stored channels last. This is faster for pooling on a CPU and
            for convolutions in half precision on a GPU; results differ by rounding only.

    Raises:
        SeqclfError: an argument is missing or out of range, or a part fails in the trial run that finds its
            ``out_features``.
    """

    def __init__(
        self,
        preprocess: Part = Normalize,
        encoder: Part = Flatten,
        temporal: Part = Identity,
        head: Part = nn.Linear,
        *,
        frame_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        refine: Sequence[Part] = (),
        activation: Callable[[Tensor], Tensor] = softmax,
        chunk: int | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if chunk is not None:
            check_counts("FrameSequenceClassifier", chunk=chunk)
        self.chunk = chunk
        self.frame_shape = None if frame_shape is None else tuple(frame_shape)
        self.preprocess = preprocess if isinstance(preprocess, nn.Module) else _built("preprocess", preprocess())
        if isinstance(self.preprocess, Normalize) and self.frame_shape is not None:
            self.preprocess.resize_to(self.frame_shape)
        if not isinstance(encoder, nn.Module):
            if frame_shape is None:
                raise SeqclfError("FrameSequenceClassifier needs frame_shape= to build its encoder")
            encoder = build_part("encoder", encoder, tuple(frame_shape))
        self.encoder = encoder
        self.channels_last = channels_last
        if channels_last:
            encoder.to(memory_format=torch.channels_last)
        if not isinstance(temporal, nn.Module):  # a built module needs no size of the encoder
            temporal = build_part("temporal", temporal, self.feature_size())
        self.temporal = temporal
        self.head = _head(head, temporal, self.feature_size, num_classes)
        if not isinstance(refine, (list, tuple)):
            raise SeqclfError(f"FrameSequenceClassifier: refine must be a list of temporal models, not {refine!r}")
        if not callable(activation):
            raise SeqclfError(f"FrameSequenceClassifier: activation must be a function of logits, not {activation!r}")
        self.refine = nn.ModuleList(_stage(part, head, num_classes, activation) for part in refine)
        self._state_examples: list[State] | None = None

    @property
    def causal(self) -> bool:
        """Whether the logits at a frame depend on frames up to it only."""
        return all(declares(temporal, "causal") for temporal in self.temporals)

    @property
    def carries_state(self) -> bool:
        """Whether the returned state continues the sequence in the next call."""
        temporals = self.temporals
        carry = [declares(temporal, "carries_state") for temporal in temporals]
        return any(carry) and all(c or declares(t, "frame_wise") for c, t in zip(carry, temporals, strict=True))

    @property
    def streams(self) -> bool:
        """Whether a sequence may be fed frame by frame: the same logits as all frames at once."""
        return all(can_stream(temporal) for temporal in self.temporals)

    @property
    def temporals(self) -> list[nn.Module]:
        """The temporal model of each stage."""
        return [self.temporal, *(stage.get_submodule("temporal") for stage in self.refine)]

    def feature_size(self) -> int:
        """D, the features per frame: as the encoder declares it, or found by encoding one blank frame.

        Raises:
            SeqclfError: the encoder declares no ``out_features`` and ``frame_shape`` is unknown, or the encoder fails.
        """
        return feature_size(self.encoder, self.preprocess, self.frame_shape)

    def input_sizes(self) -> list[int]:
        """The features per frame that the temporal model of each stage reads: D, then K; errors as feature_size."""
        stages: list[Stage] = list(self.refine)  # type: ignore[arg-type]
        return [self.feature_size(), *(stage.input_size for stage in stages)]

    def _encode(self, frames: Tensor) -> Tensor:
        """Encodes raw frames ``(M, *frame_shape)`` to features ``(M, D)``, a chunk at a time."""

        def encode(chunk: Tensor) -> Tensor:
            pictures = self.preprocess(chunk)
            if self.channels_last and pictures.dim() == 4:
                pictures = pictures.contiguous(memory_format=torch.channels_last)
            return check_encoded(self.encoder, self.encoder(pictures), pictures.shape[0])

        if self.chunk is None or len(frames) <= self.chunk:
            return encode(frames)
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in self.encoder.parameters())
        chunks = frames.split(self.chunk)
        return torch.cat([checkpoint(encode, c, use_reentrant=False) if trained else encode(c) for c in chunks])

    def forward(
        self, frames: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Returns the logits at every frame, and the state after the last.

        If ``streams`` is True, T calls with one frame each, passing the state on, equal one call with T frames.

        Args:
            frames: ``(B, T, *frame_shape)``, uint8 or float.
            is_first: ``(B, T)`` bool, True where a frame begins a new sequence, so that no memory crosses it; None for
                nowhere.
            state: the state that an earlier call returned, to continue its sequences; None to begin new ones.
            lengths: ``(B,)`` int64 from 1 to T, the number of valid frames of each clip; the others are padding and
                have no influence. None for T.

        Returns:
            logits ``(B, T, K)``, and the state after each stream's last valid frame.

        Raises:
            SeqclfError: an argument has the wrong shape or dtype, or a part of the model returns a wrong one.
        """
        stages, state = self.forward_stages(frames, is_first, state, lengths)
        return stages[-1], state

    def forward_stages(
        self, frames: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[list[Tensor], State]:
        """As ``forward``, with the logits of each stage, ``(B, T, K)``, for deep supervision."""
        self._check(frames, is_first, state, lengths)
        return self.classify(self._features(frames, lengths), is_first, state, lengths)

    def classify(
        self, features: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None
    ) -> tuple[list[Tensor], State]:
        """As ``forward_stages``, from the features ``(B, T, D)`` of the encoder on."""
        before, *others = self._split(state)
        result = self.temporal(features, is_first, before, lengths)
        hidden, after = check_result(self.temporal, result, features.shape)
        logits, states = [self.head(hidden)], [after]
        for stage, before in zip(self.refine, others, strict=True):
            refined, after = stage(logits[-1], is_first, before, lengths)
            logits.append(refined)
            states.append(after)
        if len(states) == 1:
            return logits, states[0]
        return logits, join_states(states) if self.carries_state else None

    def _split(self, state: State) -> list[State]:
        """The state of each stage."""
        if state is None or not self.refine:
            return [state, *(None for _ in self.refine)]
        if self._state_examples is None:
            pairs = zip(self.temporals, self.input_sizes(), strict=True)
            self._state_examples = [state_example(temporal, size) for temporal, size in pairs]
        return split_state(state, self._state_examples)

    def _features(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Features ``(B, T, D)`` of raw frames ``(B, T, *frame_shape)``, zero at padding."""
        B, T = frames.shape[:2]
        if lengths is None or int(lengths.min()) == T:
            encoded = self._encode(frames.flatten(0, 1))
        else:  # an encoder that mixes frames (batch norm) must not see padding, and need not pay for it
            valid = valid_frames(lengths, frames.shape, frames.device).flatten()
            kept = self._encode(frames.flatten(0, 1)[valid])
            encoded = kept.new_zeros(B * T, kept.shape[-1]).index_put((valid.nonzero()[:, 0],), kept)
        return encoded.unflatten(0, (B, T))

    def _check(self, frames: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None) -> None:
        if frames.dim() < 3 or (self.frame_shape is not None and frames.shape[2:] != self.frame_shape):
            shape = ", ".join(map(str, self.frame_shape)) if self.frame_shape else "*frame_shape"
            raise SeqclfError(f"this model expects frames (B, T, {shape}), not {tuple(frames.shape)}")
        B, T = frames.shape[:2]
        if B == 0 or T == 0:
            raise SeqclfError(f"a batch needs at least one clip of one frame, not frames {tuple(frames.shape)}")
        check_sequences((B, T), is_first, lengths)
        if state is not None and not self.carries_state:
            name = next(type(t).__name__ for t in self.temporals if not declares(t, "carries_state"))
            raise SeqclfError(f"{name} does not declare carries_state = True, so it cannot continue from a state")
        if lengths is None:
            return
        equal = [type(t).__name__ for t in self.temporals if declares(t, "equal_lengths")]
        if equal and int(lengths.min()) < T:
            raise SeqclfError(
                f"{equal[0]} declares equal_lengths = True, but the clips have lengths {lengths.tolist()}"
            )


def _head(head: Part, temporal: nn.Module, input_size: Callable[[], int], num_classes: int | None) -> nn.Module:
    """The head of a temporal model that reads ``input_size()`` features."""
    if isinstance(head, nn.Module):
        return head
    if num_classes is None:
        raise SeqclfError("FrameSequenceClassifier needs num_classes= to build its head")
    return _built("head", head(hidden_size(temporal, input_size), num_classes))


def _built(part: str, result: object) -> nn.Module:
    if not isinstance(result, nn.Module):
        raise SeqclfError(f"FrameSequenceClassifier: {part} must return a module, not {type(result).__name__}")
    return result


def _stage(temporal: Part, head: Part, num_classes: int | None, activation: Callable[[Tensor], Tensor]) -> Stage:
    """A refinement stage, which reads the classes."""
    if isinstance(head, nn.Module) or num_classes is None:
        raise SeqclfError("FrameSequenceClassifier: refine= needs head= as a class or function, and num_classes=")
    temporal = build_part("refine", temporal, num_classes)
    return Stage(temporal, _head(head, temporal, lambda: num_classes, num_classes), num_classes, activation)
