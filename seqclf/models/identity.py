"""The temporal model without memory."""

from __future__ import annotations

from torch import Tensor, nn

from seqclf.batch import valid_frames
from seqclf.models.contract import State, check_sequences


class Identity(nn.Module):
    """Returns the features ``(B, T, D)`` unchanged, zero at padding: each frame is classified on its own.

    The state is None. ``input_size`` (D) is only needed to declare ``out_features``.
    """

    causal, carries_state, frame_wise = True, False, True

    def __init__(self, input_size: int | None = None) -> None:
        super().__init__()
        self.out_features = input_size

    def forward(
        self, features: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        check_sequences(features.shape[:2], is_first, lengths)
        if lengths is not None:
            features = features * valid_frames(lengths, features.shape, features.device)[..., None]
        return features, None
