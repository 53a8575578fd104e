# Copyright (c) dms_razor contributors. All rights reserved.
"""Prune a language model of Hugging Face, with itself as the teacher.

    python examples/prune_language_model.py MODEL TRAIN.txt TEST.txt OUT

searches heads and feed-forward widths of every layer down to a share of the
parameters, finetunes what it found, and writes OUT/hf, which
``AutoModelForCausalLM.from_pretrained`` loads after ``import dms_razor.llm``.
The same is done to a network that is narrowed evenly by the sizes of its
weights. Needs ``pip install dms_razor[llm]``.
"""
import argparse
import copy
import math
from pathlib import Path

import torch
import torch.nn.functional as F

from dms_razor import Search
from dms_razor.baselines import narrow
from dms_razor.llm import Distillation, write_folder

#: Left as it is: the hidden size, as in the paper (Table 10).
FIXED = {'model.embed_tokens': dict(fixed=True)}


def blocks_of(path, tokenizer, length):
    """A text as words ``[N, length]``."""
    words = tokenizer(Path(path).read_text(), return_tensors='pt').input_ids[0]
    return words[:len(words) // length * length].view(-1, length)


@torch.no_grad()
def perplexity(model, blocks):
    """Of the next word, over whole blocks."""
    model.eval()
    total = sum(
        float(
            F.cross_entropy(
                model(batch).logits[:, :-1].flatten(0, 1),
                batch[:, 1:].flatten(),
                reduction='sum')) for batch in blocks.split(32))
    return math.exp(total / (blocks.shape[0] * (blocks.shape[1] - 1)))


def train(model, teacher, blocks, steps, args, search=None):
    """Search a model, or finetune it, towards the text and the teacher."""
    optimizer = torch.optim.AdamW(model.parameters(), args.lr)
    if search is not None:
        search.attach(optimizer)
    distil = Distillation(teacher=teacher)
    draw = torch.Generator().manual_seed(args.seed)
    model.train()
    for step in range(steps):
        rows = torch.randint(len(blocks), (args.batch_size, ), generator=draw)
        batch = dict(input_ids=blocks[rows], labels=blocks[rows])
        out = model(**batch)
        loss = out.loss + distil(out.logits, batch)
        if search is not None:
            loss = search.loss(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f'  step {step} of {steps}, loss {float(loss):.3f}')


def found(kind, original, blocks, args):
    """A smaller network, searched or narrowed evenly, and finetuned."""
    model = copy.deepcopy(original)
    search = Search(
        model,
        dict(input_ids=blocks[:1]),
        args.target,
        metric='params',
        total_steps=args.steps,
        units=FIXED,
        depth=False,
        seed=args.seed)
    print(f'{kind}:')
    steps = args.finetune
    if kind == 'searched':
        train(model, original, blocks, args.steps, args, search)
    else:
        narrow(search, 'l1')
        steps += args.steps  # as many in all
    export = search.export(args.out / kind, picture=False)
    train(export.model, original, blocks, steps, args)
    return export


def main():
    """Search, narrow, compare, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('model', help='folder or name on the hub')
    parser.add_argument('train', help='text file')
    parser.add_argument('test', help='text file')
    parser.add_argument('out', type=Path)
    parser.add_argument('--target', default='80%', help='of the parameters')
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--finetune', type=int, default=200)
    parser.add_argument('--length', type=int, default=64)
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--lr', type=float, default=5e-4)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    original = AutoModelForCausalLM.from_pretrained(args.model)
    blocks, test = (
        blocks_of(path, tokenizer, args.length)
        for path in (args.train, args.test))
    rows = [('original', original)]
    for kind in ('narrowed evenly', 'searched'):
        export = found(kind, original, blocks, args)
        rows.append((kind, export.model))
    told = write_folder(export, args.out / 'hf', tokenizer)
    print('\n| network | parameters | perplexity |\n| --- | --- | --- |')
    for kind, model in rows:
        size = sum(p.numel() for p in model.parameters())
        print(f'| {kind} | {size:,} | {perplexity(model, test):.2f} |')
    print(f'\n{args.out / "hf"}: {told["class"]}, logits differ by '
          f'{told["difference"]:.0e}')


if __name__ == '__main__':
    main()
