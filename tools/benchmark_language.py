# Copyright (c) dms_razor contributors. All rights reserved.
"""Time a search step of a Llama against a plain step of the same network.

Both are trained side by side in one process, on random words, as in
benchmark_overhead.py: each round runs a plain step, a search step and a plain
step again. Searched are heads and feed-forward widths, as in the paper, of a
Llama of random weights, 20 M parameters by default, under its parameters.

Of weights that train, of LoRA in all linear layers (with the package peft), of
linear layers that rest while the embedding and the norms train, and of
gradient checkpointing: the ratio of a search step to a plain one and that of
the two plain ones (medians over the rounds), and the bytes that are kept for
the backward pass, search over plain.
"""
import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Dict, Tuple

import torch
from _kept import kept_bytes
from torch import nn

from dms_razor import Search
from dms_razor.llm.modeling import transformers
from dms_razor.masking import unmask

PAPER = dict(depth=False, units={'*embed_tokens': dict(fixed=True)})
try:
    import peft
except ImportError:
    peft = None

MODES = ('weights', 'adapters', 'rest', 'checkpointing')


class Side:
    """A language model with its optimizer.

    Args:
        model (nn.Module): A causal language model.
        words (Tensor): ``[B, T]``, trained on again and again.
        search (Search, optional): Of the model.
    """

    def __init__(self,
                 model: nn.Module,
                 words: torch.Tensor,
                 search: Search = None) -> None:
        self.model, self.words, self.search = model.train(), words, search
        self.optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], 1e-5)
        if search is not None:
            search.attach(self.optimizer)
            # Somewhere in the middle of a search: all terms are at work.
            search.bank.ratios += .1
            search.bank.refresh()

    def loss(self) -> torch.Tensor:
        loss = self.model(input_ids=self.words, labels=self.words).loss
        return loss if self.search is None else self.search.loss(loss)

    def step(self) -> float:
        """Train one step; returns the seconds it took."""
        start = time.perf_counter()
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return time.perf_counter() - start


def make_sides(args: argparse.Namespace, mode: str) -> Tuple[Side, Side]:
    """The search and the plain network, with equal weights."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=args.words,
            hidden_size=args.hidden,
            intermediate_size=8 * args.hidden // 3,
            num_hidden_layers=args.layers,
            num_attention_heads=args.hidden // 64,
            num_key_value_heads=args.hidden // 64,
            use_cache=False))
    words = torch.randint(args.words, (args.batch, args.length))
    if mode == 'rest':
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.requires_grad_(False)
    if mode == 'checkpointing':
        model.gradient_checkpointing_enable(dict(use_reentrant=False))
    if mode == 'adapters':
        model = peft.get_peft_model(
            model, peft.LoraConfig(target_modules='all-linear'))
    plain = copy.deepcopy(model)
    search = Search(
        model,
        dict(input_ids=words[:1]),
        '80%',
        metric='params',
        total_steps=10**6,
        check=False,
        **({} if args.everything else PAPER))
    return Side(model, words, search), Side(unmask(plain), words)


def measure(args: argparse.Namespace, mode: str) -> Dict[str, float]:
    """Run the rounds of one mode."""
    search, plain = make_sides(args, mode)
    times = [(plain.step(), search.step(), plain.step())
             for _ in range(args.warmup + args.rounds)][args.warmup:]
    return dict(
        parameters=sum(p.numel() for p in plain.model.parameters()),
        plain_s=statistics.median(t for a, _, b in times for t in (a, b)),
        ratio=statistics.median(2 * s / (a + b) for a, s, b in times),
        control=statistics.median(b / a for a, _, b in times),
        kept=kept_bytes(search.model, search.loss) /
        kept_bytes(plain.model, plain.loss))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(
            hidden=384,
            layers=10,
            words=4096,
            batch=8,
            length=256,
            rounds=20,
            warmup=3).items():
        parser.add_argument(f'--{name}', type=int, default=value)
    parser.add_argument('--modes', nargs='+', choices=MODES, default=MODES)
    parser.add_argument(
        '--everything',
        action='store_true',
        help='search the hidden size and the depth, too')
    parser.add_argument('--json', metavar='FILE')
    args = parser.parse_args()
    if min(args.rounds, args.layers, args.batch) < 1 or args.hidden % 64:
        parser.error('give at least one round, layer and text, and a hidden '
                     'size of heads of 64 dims')
    if transformers is None:
        sys.exit('pip install .[llm] first: this needs transformers')
    found = {}
    for mode in args.modes:
        if mode == 'adapters' and peft is None:
            print('adapters       not measured: they need the package peft')
            continue
        found[mode] = one = measure(args, mode)
        print(f'{mode:<14} {one["parameters"]:,} parameters, a plain step '
              f'{one["plain_s"]:.3f} s: search / plain {one["ratio"]:.3f}, '
              f'control {one["control"]:.3f}, kept {one["kept"]:.4f}')
    if not found:
        sys.exit(1)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    main()
