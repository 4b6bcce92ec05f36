"""Joint attention of text and image tokens.

Shapes: B batch, L image tokens, T text tokens, N regions, d channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.models.backbones.attention import followed_by, gated
from ragaf_exp.models.backbones.isolation import Columns
from ragaf_exp.models.backbones.positions import Rotation, rotate
from ragaf_exp.models.backbones.token_attention import HeadNorm, Watch, attend, split_heads
from ragaf_exp.models.conditioning import Appended

Read = tuple[Tensor, Tensor | None, Tensor | None]  # for the image, the text and the regions


class JointAttention(nn.Module):
    """Text and image tokens attend to each other in one softmax (Esser et al. 2024, arXiv 2403.03206).

    Each modality has its own projections: `to_*` for the image, `add_*` for the text.

    Args:
        width: C, channels of a token.
        heads: Number of attention heads.
        updates_text: Whether text tokens are updated too. The last layer of a network does not update them.

    Attributes:
        watch: If set, it is called with the image-to-text attention (B,L,T), the mean over heads.
    """

    watch: Watch | None = None

    def __init__(self, width: int, heads: int, updates_text: bool):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.add_k, self.add_v = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_q, self.norm_k = HeadNorm(width, heads), HeadNorm(width, heads)
        self.add_norm_k = HeadNorm(width, heads)
        if updates_text:
            self.add_q, self.add_out = nn.Linear(width, width), nn.Linear(width, width)
            self.add_norm_q = HeadNorm(width, heads)

    def forward(
        self, x: Tensor, text: Tensor, bias: Tensor, padding: Tensor, rotation: Rotation | None,
        appended: Appended | None = None, isolated: Columns | None = None,
    ) -> Read:  # fmt: skip
        """Attend to the concatenation of text and image tokens, and of region tokens if there are any.

        Args:
            x: Image tokens, (B,L,C).
            text: Text tokens, (B,T,C).
            bias: Bias of the image-to-text attention logits, (B,1,1 or L,T).
            padding: Padding mask of the text as an additive bias, (B,1,1,T).
            rotation: Rotary embedding of the image tokens' positions; text tokens have none.
            appended: Region tokens of this layer, (B,N,C), which are projected as those of the text.
            isolated: Bias of image tokens' attention to text and image tokens, of an injection without `appended`.

        Returns:
            Outputs for the image, (B,L,C), for the text, (B,T,C), and for the regions, (B,N,C). The latter two are None
            if the text is not updated.
        """
        assert appended is None or isolated is None, "no injection has both"
        image = x.shape[1]
        bias, padding = F.pad(bias, (0, image)), F.pad(padding, (0, image))
        q, k = (rotate(y, rotation) for y in (self.norm_q(self.to_q(x)), self.norm_k(self.to_k(x))))
        near, far = self._keys(text), (k, split_heads(self.to_v(x), self.heads))
        keys, values = (torch.cat(pair, dim=2) for pair in zip(near, far, strict=True))  # (B,heads,T+L,d)
        read = attend(q, keys, values, bias, self.watch, text.shape[1], isolated)
        updates = hasattr(self, "add_q")
        text_read = attend(self._queries(text), keys, values, padding) if updates else None
        if appended is None:
            return self.to_out(read), None if text_read is None else self.add_out(text_read), None
        further, gate = self._keys(appended.tokens), appended.gates
        keys, values = (torch.cat(pair, dim=2) for pair in zip((keys, values), further, strict=True))  # (B,heads,T+L+N,d)
        read = gated(read, attend(q, keys, values, followed_by(bias, appended.bias)), gate)
        if text_read is None:
            return self.to_out(read), None, None
        queries = self._queries(torch.cat([text, appended.tokens], dim=1))  # (B,heads,T+N,d)
        wider = attend(queries, keys, values, followed_by(padding, appended.bias))  # (B,T+N,C)
        text_wider, regions_read = wider.tensor_split([text.shape[1]], dim=1)
        return self.to_out(read), self.add_out(gated(text_read, text_wider, gate)), self.add_out(regions_read)

    def _keys(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values (B,heads,T,d) of text tokens (B,T,C)."""
        return self.add_norm_k(self.add_k(text)), split_heads(self.add_v(text), self.heads)

    def _queries(self, text: Tensor) -> Tensor:
        """Return the queries (B,heads,T,d) of text tokens (B,T,C)."""
        return self.add_norm_q(self.add_q(text))
