"""A small GPT in plain PyTorch: pre-norm, learned positions, tied embeddings, dropout, loss inside.

No linear biases: a bias on the attention keys has a gradient of exactly zero, so an optimizer would step on rounding
noise and equal runs would drift apart.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional


@dataclasses.dataclass
class GptConfig:
    layers: int = 4
    width: int = 256
    heads: int = 4
    context: int = 128
    vocabulary: int = 256
    dropout: float = 0.1


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.projection_in = nn.Linear(config.width, 3 * config.width, bias=False)
        self.projection_out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.projection_in(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0, is_causal=True)
        return self.projection_out(mixed.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.projection_in = nn.Linear(config.width, 4 * config.width, bias=False)
        self.projection_out = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x):
        return self.projection_out(functional.gelu(self.projection_in(x)))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width, bias=False)
        self.attention = Attention(config)
        self.norm_mlp = nn.LayerNorm(config.width, bias=False)
        self.mlp = Mlp(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm_attention(x)))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


class Gpt(nn.Module):
    """forward(tokens, targets), both int64 [batch, length <= context], gives the mean cross-entropy in nats."""

    def __init__(self, config):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.head.weight = self.token_embedding.weight
        self._initialise(config.layers)

    def forward(self, tokens, targets):
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def _initialise(self, layers):
        # As GPT-2: what is added to the residual stream is scaled down by the number of additions.
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                residual = name.endswith("projection_out.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)
