# Copyright (c) dms_razor contributors. All rights reserved.
"""Mixtures of experts as Hugging Face has them, written anew for tests.

Experts are two parameters, and a loop runs those that words were sent to;
float64, random numbers.
"""
import torch
import torch.nn.functional as F
from language_nets import RMSNorm
from torch import nn

WORDS = torch.randint(
    0, 31, (2, 9), generator=torch.Generator().manual_seed(0))


class Experts(nn.Module):
    """``[words, width]``, the numbers of each word's experts and weights."""
    has_gate = True

    def __init__(self, number, width, inner):
        super().__init__()
        self.num_experts = number
        self.hidden_dim, self.intermediate_dim = width, inner
        self.gate_up_proj = nn.Parameter(torch.zeros(number, 2 * inner, width))
        self.down_proj = nn.Parameter(torch.zeros(number, width, inner))
        self.act_fn = nn.SiLU()

    def forward(self, hidden_states, top_k_index, top_k_weights):
        out = torch.zeros_like(hidden_states)
        for number in top_k_index.unique().tolist():
            word, place = torch.where(top_k_index == number)
            gate, up = F.linear(hidden_states[word],
                                self.gate_up_proj[number]).chunk(2, -1)
            own = F.linear(self.act_fn(gate) * up, self.down_proj[number])
            out.index_add_(0, word, own * top_k_weights[word, place, None])
        return out


class Router(nn.Module):
    """Scores of all, and weights and numbers of the best.

    ``how``: what it does else, see :meth:`chosen`.
    """

    def __init__(self, number, width, top, how=''):
        super().__init__()
        self.num_experts, self.hidden_dim = number, width
        self.top, self.how = top, how
        self.weight = nn.Parameter(torch.zeros(number, width))

    def forward(self, x):
        scores = F.linear(x.reshape(-1, self.hidden_dim), self.weight)
        weights, numbers = self.chosen(scores)
        weights = weights / weights.sum(-1, keepdim=True)
        return scores, weights, numbers

    def chosen(self, scores):
        if self.how == 'sigmoid':
            return scores.sigmoid().topk(self.top)
        if self.how == 'smallest':
            return scores.softmax(-1).topk(self.top, largest=False)
        chances = F.softmax(scores, dim=-1, dtype=torch.float64)
        if self.how == 'biased':  # by something else, too
            chances = chances + torch.linspace(0, .1, scores.shape[-1])
        if self.how == 'noisy' and self.training:
            chances = chances * torch.rand_like(chances)
        weights, numbers = torch.topk(chances, self.top, dim=-1)
        if self.how == 'counted':
            weights = weights * (1 + (numbers < 2))
        return weights, numbers


class Mixture(nn.Module):
    """A router and its experts."""

    def __init__(self, width, inner, number, top, how):
        super().__init__()
        self.gate = Router(number, width, top, how)
        self.experts = Experts(number, width, inner)

    def forward(self, x):
        rows = x.view(-1, x.shape[-1])
        self.scores, weights, numbers = self.gate(rows)
        return self.experts(rows, numbers, weights).view_as(x)


class MixtureLayer(nn.Module):
    """A decoder's layer without attention."""

    def __init__(self, width=16, inner=24, number=5, top=2, how=''):
        super().__init__()
        self.norm = RMSNorm(width)
        self.mlp = Mixture(width, inner, number, top, how)

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class MixtureDecoder(nn.Module):
    """Logits ``[B, T, 31]`` of words ``[B, T]``."""

    def __init__(self, layers=2, shows=False, **settings):
        super().__init__()
        self.words = nn.Embedding(31, settings.get('width', 16))
        self.layers = nn.ModuleList(
            MixtureLayer(**settings) for _ in range(layers))
        self.head = nn.Linear(settings.get('width', 16), 31, bias=False)
        self.shows = shows

    def forward(self, words):
        x = self.words(words)
        for layer in self.layers:
            x = layer(x)
        if self.shows:
            return self.head(x), self.layers[0].mlp.scores
        return self.head(x)


def mixture(**settings):
    """Random numbers, so large that each word has experts of its own."""
    torch.manual_seed(0)
    net = MixtureDecoder(**settings).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
            if parameter.dim() > 1:
                parameter.div_(parameter.shape[-1]**.5)
    return net
