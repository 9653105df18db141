"""The one model: preprocess -> frame encoder -> temporal model -> head, answering at every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqclf.batch import SeqclfError, valid_frames
from seqclf.models.encoder import Flatten
from seqclf.models.preprocess import Normalize
from seqclf.models.temporal import Identity, State, check_sequences

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
            size = getattr(temporal, "out_features", None) or self._encoded_size()
            head = head(size, num_classes)
        self.head = head

    def _encoded_size(self) -> int:
        """D: as the encoder says, or found by encoding one blank frame."""
        size = getattr(self.encoder, "out_features", None)
        if isinstance(size, int):
            return size
        if self.frame_shape is None:
            raise SeqclfError("FrameSequenceClassifier needs frame_shape= to size its temporal model")
        modes = [(module, module.training) for module in self.encoder.modules()]  # some may be frozen
        with torch.no_grad():
            encoded = self.encoder.eval()(self.preprocess(torch.zeros(1, *self.frame_shape)))
        for module, training in modes:
            module.training = training
        return encoded.shape[-1]

    def _encode(self, frames: Tensor) -> Tensor:
        """Raw frames ``(M, *frame_shape)`` as features ``(M, D)``, a chunk at a time."""

        def encode(chunk: Tensor) -> Tensor:
            pictures = self.preprocess(chunk)
            if self.channels_last and pictures.dim() == 4:
                pictures = pictures.contiguous(memory_format=torch.channels_last)
            return self.encoder(pictures)

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
        if lengths is None or int(lengths.min()) == T:
            encoded = self._encode(frames.flatten(0, 1))
        else:  # an encoder that mixes frames (batch norm) must not see padding, and need not pay for it
            valid = valid_frames(lengths, frames.shape, frames.device).flatten()
            kept = self._encode(frames.flatten(0, 1)[valid])
            encoded = kept.new_zeros(B * T, kept.shape[-1]).index_put((valid.nonzero()[:, 0],), kept)
        features = rearrange(encoded, "(b t) d -> b t d", b=B)
        hidden, state = self.temporal(features, is_first, state, lengths)
        return self.head(hidden), state
