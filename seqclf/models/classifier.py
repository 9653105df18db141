"""The model: preprocessing, a frame encoder, a temporal model and a head, with logits at every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqclf.batch import SeqclfError, valid_frames
from seqclf.models.contract import (
    State,
    can_stream,
    check_encoded,
    check_result,
    check_sequences,
    declared_size,
    declares,
)
from seqclf.models.encoder import Flatten
from seqclf.models.identity import Identity
from seqclf.models.preprocess import Normalize

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
        chunk: int | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if chunk is not None and chunk < 1:
            raise SeqclfError(f"FrameSequenceClassifier: chunk must be at least 1 or None, not {chunk}")
        self.chunk = chunk
        self.frame_shape = None if frame_shape is None else tuple(frame_shape)
        self.preprocess = preprocess if isinstance(preprocess, nn.Module) else preprocess()
        if not isinstance(encoder, nn.Module):
            if frame_shape is None:
                raise SeqclfError("FrameSequenceClassifier needs frame_shape= to build its encoder")
            encoder = encoder(self.frame_shape)
        self.encoder = encoder
        self.channels_last = channels_last
        if channels_last:
            encoder.to(memory_format=torch.channels_last)
        if not isinstance(temporal, nn.Module):
            temporal = temporal(self.feature_size())
        self.temporal = temporal
        if not isinstance(head, nn.Module):
            if num_classes is None:
                raise SeqclfError("FrameSequenceClassifier needs num_classes= to build its head")
            head = head(self._hidden_size(), num_classes)
        self.head = head

    @property
    def causal(self) -> bool:
        """Whether the logits at a frame depend on frames up to it only."""
        return declares(self.temporal, "causal")

    @property
    def carries_state(self) -> bool:
        """Whether the returned state continues the sequence in the next call."""
        return declares(self.temporal, "carries_state")

    @property
    def streams(self) -> bool:
        """Whether a sequence may be fed frame by frame: the same logits as all frames at once."""
        return can_stream(self.temporal)

    def feature_size(self) -> int:
        """D, the features per frame: as the encoder declares it, or found by encoding one blank frame.

        Raises:
            SeqclfError: the encoder declares no ``out_features`` and ``frame_shape`` is unknown, or the encoder fails.
        """
        size = declared_size(self.encoder)
        if size is not None:
            return size
        name = type(self.encoder).__name__
        if self.frame_shape is None:
            raise SeqclfError(f"FrameSequenceClassifier needs frame_shape= to find out_features of the encoder {name}")
        blank = torch.zeros(1, *self.frame_shape, device=_device(self.encoder))
        return check_encoded(self.encoder, _run(self.encoder, lambda: self.encoder(self.preprocess(blank))), 1).shape[1]

    def _hidden_size(self) -> int:
        """H: as the temporal model declares it, or found by running it on blank features."""
        size = declared_size(self.temporal)
        if size is not None:
            return size
        blank = torch.zeros(2, 8, self.feature_size(), device=_device(self.temporal))
        return check_result(self.temporal, _run(self.temporal, lambda: self.temporal(blank)), blank.shape)[0].shape[2]

    def _encode(self, frames: Tensor) -> Tensor:
        """Encodes raw frames ``(M, *frame_shape)`` to features ``(M, D)``, a chunk at a time."""

        def encode(chunk: Tensor) -> Tensor:
            pictures = self.preprocess(chunk)
            if self.channels_last and pictures.dim() == 4:
                pictures = pictures.contiguous(memory_format=torch.channels_last)
            return check_encoded(self.encoder, self.encoder(pictures), len(pictures))

        if self.chunk is None or len(frames) <= self.chunk:
            return encode(frames)
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in self.encoder.parameters())
        chunks = frames.split(self.chunk)
        return torch.cat([checkpoint(encode, c, use_reentrant=False) if trained else encode(c) for c in chunks])

    def forward(
        self,
        frames: Tensor,
        is_first: Tensor | None = None,
        state: State = None,
        lengths: Tensor | None = None,
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
        self._check(frames, is_first, state, lengths)
        B, T = frames.shape[:2]
        if lengths is None or int(lengths.min()) == T:
            encoded = self._encode(frames.flatten(0, 1))
        else:  # an encoder that mixes frames (batch norm) must not see padding, and need not pay for it
            valid = valid_frames(lengths, frames.shape, frames.device).flatten()
            kept = self._encode(frames.flatten(0, 1)[valid])
            encoded = kept.new_zeros(B * T, kept.shape[-1]).index_put((valid.nonzero()[:, 0],), kept)
        features = rearrange(encoded, "(b t) d -> b t d", b=B)
        result = self.temporal(features, is_first, state, lengths)
        hidden, state = check_result(self.temporal, result, features.shape)
        return self.head(hidden), state

    def _check(self, frames: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None) -> None:
        if frames.dim() < 3 or (self.frame_shape is not None and frames.shape[2:] != self.frame_shape):
            shape = ", ".join(map(str, self.frame_shape)) if self.frame_shape else "*frame_shape"
            raise SeqclfError(f"this model expects frames (B, T, {shape}), not {tuple(frames.shape)}")
        B, T = frames.shape[:2]
        if B == 0 or T == 0:
            raise SeqclfError(f"a batch needs at least one clip of one frame, not frames {tuple(frames.shape)}")
        check_sequences((B, T), is_first, lengths)
        name = type(self.temporal).__name__
        if state is not None and not self.carries_state:
            raise SeqclfError(f"{name} does not declare carries_state = True, so it cannot continue from a state")
        if lengths is not None and declares(self.temporal, "equal_lengths") and int(lengths.min()) < T:
            raise SeqclfError(f"{name} declares equal_lengths = True, but the clips have lengths {lengths.tolist()}")


def _device(module: nn.Module) -> torch.device | None:
    """Where the module's parameters are; None if it has none."""
    return next((p.device for p in module.parameters()), None)


def _run(module: nn.Module, call: Callable[[], Any]) -> Any:
    """Calls the module in evaluation mode, without gradients, to learn the size of its output."""
    modes = [(part, part.training) for part in module.modules()]  # some may be frozen
    module.eval()
    try:
        with torch.no_grad():
            return call()
    except Exception as error:
        name = type(module).__name__
        raise SeqclfError(f"{name} declares no out_features, and a trial run to find it failed: {error}") from error
    finally:
        for part, training in modes:
            part.training = training
