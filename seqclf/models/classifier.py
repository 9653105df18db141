"""The one model: preprocess -> frame encoder -> temporal model -> head, answering at every frame."""

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
from seqclf.models.preprocess import Normalize
from seqclf.models.temporal import Identity

Part = nn.Module | Callable[..., nn.Module]
"""A module, or what builds one from the sizes that come before it in the model."""


class FrameSequenceClassifier(nn.Module):
    """Classifies sequences of frames, at every frame.

    Each part is a module, or a class (or ``functools.partial`` of one) that is called with the sizes it reads:
    ``preprocess()``, ``encoder(frame_shape)``, ``temporal(D)``, ``head(H, num_classes)``.

    Args:
        preprocess: raw frames ``(..., *frame_shape)``, uint8 or float, to floats of the same shape.
        encoder: frames ``(M, *frame_shape)`` to features ``(M, D)``.
        temporal: features ``(B, T, D)``, with is_first, state and lengths, to ``(B, T, H)`` and a state.
        head: ``(..., H)`` to logits ``(..., K)``.
        frame_shape: the shape of one frame, ``(D,)`` or ``(C, H, W)``. Needed where the encoder is to be built; given,
            it is checked on every call.
        num_classes: K. Needed where the head is to be built.
        chunk: how many frames the encoder sees at a time, which bounds its memory: where it learns, a chunk is computed
            anew on the way back (``torch.utils.checkpoint``). None for all at once. An encoder that mixes frames (batch
            norm that learns) then mixes those of a chunk.
        channels_last: whether the encoder's pictures lie in memory channels last, which suits pooling on a CPU, and
            convolutions in half precision on a GPU; of no influence on the figures but for rounding.
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
            raise SeqclfError(f"FrameSequenceClassifier: chunk={chunk}, expected at least 1, or None")
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
            temporal = temporal(self._encoded_size())
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

    def _encoded_size(self) -> int:
        """D: as the encoder declares it, or found by encoding one blank frame."""
        size = declared_size(self.encoder)
        if size is not None:
            return size
        name = type(self.encoder).__name__
        if self.frame_shape is None:
            raise SeqclfError(f"FrameSequenceClassifier needs frame_shape= to find out_features of the encoder {name}")
        blank = torch.zeros(1, *self.frame_shape)
        return check_encoded(self.encoder, _run(self.encoder, lambda: self.encoder(self.preprocess(blank))), 1).shape[1]

    def _hidden_size(self) -> int:
        """H: as the temporal model declares it, or found by running it on blank features."""
        size = declared_size(self.temporal)
        if size is not None:
            return size
        blank = torch.zeros(2, 8, self._encoded_size())
        return check_result(self.temporal, _run(self.temporal, lambda: self.temporal(blank)), blank.shape)[0].shape[2]

    def _encode(self, frames: Tensor) -> Tensor:
        """Raw frames ``(M, *frame_shape)`` as features ``(M, D)``, a chunk at a time."""

        def encode(chunk: Tensor) -> Tensor:
            pictures = self.preprocess(chunk)
            if self.channels_last and pictures.dim() == 4:
                pictures = pictures.contiguous(memory_format=torch.channels_last)
            return check_encoded(self.encoder, self.encoder(pictures), len(pictures))

        if self.chunk is None or len(frames) <= self.chunk:
            return encode(frames)
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.encoder.parameters())
        chunks = frames.split(self.chunk)
        return torch.cat([checkpoint(encode, c, use_reentrant=False) if learns else encode(c) for c in chunks])

    def forward(
        self,
        frames: Tensor,
        is_first: Tensor | None = None,
        state: State = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Logits at every frame, and the memory after the last.

        ``T`` calls with one frame each, the state passed on, equal one call with ``T`` frames.

        Args:
            frames: ``(B, T, *frame_shape)``, uint8 or float.
            is_first: ``(B, T)`` bool, True where a frame begins a new sequence: no memory crosses it. None: nowhere.
            state: what an earlier call returned, to go on from; None for no memory.
            lengths: ``(B,)`` int64 from 1 to T: frames from there on are padding, of no influence. None: all T valid.

        Returns:
            logits ``(B, T, K)`` and the state after each stream's last valid frame.

        Raises:
            SeqclfError: the frames, or another argument, are of the wrong shape or dtype.
        """
        if frames.dim() < 3 or (self.frame_shape is not None and frames.shape[2:] != self.frame_shape):
            shape = ", ".join(map(str, self.frame_shape)) if self.frame_shape else "*frame_shape"
            raise SeqclfError(f"this model expects frames (B, T, {shape}), not {tuple(frames.shape)}")
        B, T = frames.shape[:2]
        if B == 0 or T == 0:
            raise SeqclfError(f"a batch needs at least one clip of one frame, not frames {tuple(frames.shape)}")
        check_sequences((B, T), is_first, lengths)
        if state is not None and not self.carries_state:
            name = type(self.temporal).__name__
            raise SeqclfError(f"{name} does not declare carries_state = True, so it can't continue from a state")
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
