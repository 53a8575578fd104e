# Copyright (c) dms_razor contributors. All rights reserved.
"""Perplexity of one language model made smaller in several ways.

    python tools/language_table.py MODEL OUT --train A.txt --test wt2=T.txt

Rows: 'searched', and networks narrowed to the same number of parameters,
evenly by the sizes of their weights ('uniform'), by first-order Taylor scores
('taylor'; 'taylor global' with one threshold for all layers) or at random.
Every row begins at the same network, adapted to the texts by ``--adapt``
steps, has it as its teacher, and is given the same batches and as many steps:
of a search and of finetuning, or of finetuning alone. Tune on seeds from 100
on, and on ``held out``, every tenth block of the training texts.

OUT/results.json grows with each run; what is in it already is not run again.
The table has the mean over seeds, and beside it the mean of the differences
to 'searched', seed by seed, with its standard error. ``--choices`` adds tasks
of several answers, JSON lines of ``query``, ``choices`` and ``gold`` or
``context_options``, ``continuation`` and ``gold``; the more likely one is the
answer. They, and ``--tasks`` of its own from the hub, are run by
lm-evaluation-harness (``pip install 'lm_eval[hf]'``).

Perplexities are of pieces of ``--length`` tokens, as papers compute them, not
the harness's rolling likelihood. 'cut' is before finetuning: for a search at
its end, for the others as they were cut from the adapted network.
"""
import argparse
import copy
import json
import math
import os
import statistics
import sys
from pathlib import Path

import torch
from _harness import Harness, write

from dms_razor import Search
from dms_razor.baselines import narrow
from dms_razor.llm import Distillation, blocks_of, perplexity

#: Left as it is: the hidden size, as in the paper (Table 10).
FIXED = {'model.embed_tokens': dict(fixed=True)}
#: Row -> method and scope of dms_razor.baselines.narrow.
ROWS = {
    'searched': None,
    'uniform': ('l1', 'local'),
    'taylor': ('taylor', 'local'),
    'taylor global': ('taylor', 'global'),
    'random': ('random', 'local'),
}


class Run:
    """Batches and steps of one row and one seed, the same for every row."""

    def __init__(self, teacher, blocks, args, seed):
        self.distil = Distillation(
            teacher=teacher, temperature=args.temperature)
        self.blocks, self.args = blocks, args
        self.draw = torch.Generator().manual_seed(seed)

    def batch(self):
        """The next batch."""
        rows = torch.randint(
            len(self.blocks), (self.args.batch_size, ), generator=self.draw)
        # Drawn on the CPU, so that batches are the same everywhere.
        chosen = self.blocks[rows.to(self.blocks.device)]
        return dict(input_ids=chosen, labels=chosen)

    def loss(self, model, batch):
        """Of the text and towards the teacher, in equal parts."""
        out = model(**batch)
        return out.loss + self.distil(out.logits, batch)

    def optimizer(self, model, lr=None):
        """What trains a network."""
        return torch.optim.AdamW(model.parameters(),
                                 self.args.lr if lr is None else lr)

    def train(self, model, optimizer, steps, falling, search=None):
        """Steps at a constant rate, then some at one that falls to 0."""
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1, (steps + falling - step) / max(falling, 1)))
        model.train()
        for _ in range(steps + falling):
            loss = self.loss(model, self.batch())
            if search is not None:
                loss = search.loss(loss)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
            optimizer.step()
            rate.step()


def adapted(original, blocks, args):
    """The network that every row begins with, made once."""
    path = args.out / 'adapted.pt'
    if not path.exists():
        model = copy.deepcopy(original)
        optimizer = torch.optim.AdamW(model.parameters(), args.adapt_lr)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1 - step / max(args.adapt, 1))
        run = Run(original, blocks, args, seed=99)
        model.train()
        for _ in range(args.adapt):
            loss = model(**run.batch()).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        part = path.with_suffix('.part')
        torch.save(model.state_dict(), part)
        os.replace(part, path)
    original.load_state_dict(
        torch.load(path, map_location=args.device, weights_only=True))
    return original


def smaller(row, original, blocks, data, args, seed):
    """The network of a row, finetuned; perplexities as cut; what it keeps."""
    torch.manual_seed(seed)
    model, run = copy.deepcopy(original), Run(original, blocks, args, seed)
    given = {} if args.ratio_lr is None else dict(
        lr=args.ratio_lr, loss_weight=args.ratio_weight)
    if args.decay is not None:
        given['decay'] = args.decay
    if args.harden:
        given['harden'] = args.harden
    search = Search(
        model,
        dict(input_ids=blocks[:1]),
        args.target,
        metric='params',
        total_steps=args.steps,
        units=FIXED,
        depth=False,
        seed=seed,
        **given)
    steps, before = args.steps, None
    if row == 'searched':
        before = run.optimizer(model, args.search_lr)
        search.attach(before)
        run.train(model, before, steps, 0, search)
        steps = 0
    else:
        method, scope = ROWS[row]
        scored = {}
        if method == 'taylor':
            scored = dict(
                batches=[run.batch() for _ in range(args.scored)],
                loss=run.loss)
            run.draw.manual_seed(seed)
        narrow(search, method, scope=scope, seed=seed, **scored)
    kept = search.structure()
    export = search.export(args.out / 'subnet', picture=False)
    subnet = export.model.eval()
    cut = {f'cut {name}': perplexity(subnet, b) for name, b in data.items()}
    optimizer = run.optimizer(subnet)
    if before is not None and not args.fresh:
        export.carry_over(model, before, optimizer)
    run.train(subnet, optimizer, steps, args.finetune)
    return subnet, dict(cut, kept={u['name']: u['kept'] for u in kept})


def measured(model, harness, data):
    """Perplexities and shares of right answers."""
    model.eval()
    found = {
        f'ppl {name}': perplexity(model, blocks)
        for name, blocks in data.items()
    }
    if harness is not None:
        found.update(harness(model))
    found['parameters'] = sum(p.numel() for p in model.parameters())
    return found


def table(results, rows):
    """What was measured, as Markdown, and the differences to 'searched'."""
    by_row = {row: {} for row in ('original', *rows)}
    for key, found in results.items():
        row, _, seed = key.rpartition('/')
        by_row.get(row, {})[seed] = found
    names = dict.fromkeys(n for found in results.values() for n in found
                          if n.startswith(('cut', 'ppl', 'acc')))
    lines = [
        '| row | seeds | parameters | ' + ' | '.join(names) + ' |',
        '| --- ' * (3 + len(names)) + '|'
    ]
    for row, seeds in by_row.items():
        cells = []
        for name in names if seeds else ():
            values = [found[name] for found in seeds.values() if name in found]
            if not values:  # the original is not cut
                cells.append('')
                continue
            cells.append(f'{statistics.mean(values):.2f}')
            searched = by_row.get('searched', {})
            both = [
                s for s in seeds.keys() & searched.keys()
                if name in seeds[s] and name in searched[s]
            ]
            if row != 'searched' and len(both) > 1:
                differ = [
                    by_row['searched'][s][name] - seeds[s][name] for s in both
                ]
                error = statistics.stdev(differ) / math.sqrt(len(differ))
                cells[-1] += f' ({statistics.mean(differ):+.2f} ± {error:.2f})'
        if cells:
            most = max(found['parameters'] for found in seeds.values())
            lines.append(
                f'| {row} | {len(seeds)} | {most:,} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def settings(words=None):
    """What the command line says, or ``words``."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='folder or name on the hub')
    parser.add_argument('out', type=Path, help='folder of the results')
    named = dict(nargs='+', metavar='NAME=FILE', default=[])
    parser.add_argument('--train', nargs='+', required=True, metavar='FILE')
    parser.add_argument('--test', **named)
    parser.add_argument('--choices', **named)
    parser.add_argument('--tasks', nargs='+', metavar='NAME', default=[])
    parser.add_argument('--limit', type=int, help='questions of each task')
    parser.add_argument('--pieces', type=int, help='of each text of --test')
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[*range(5)])
    parser.add_argument('--target', default='80%', help='of the parameters')
    parser.add_argument('--adapt', type=int, default=1000)
    parser.add_argument('--adapt-lr', type=float, default=1e-3)
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--finetune', type=int, default=200)
    parser.add_argument('--scored', type=int, default=20)
    parser.add_argument('--length', type=int, default=64)
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--lr', type=float, default=5e-4)
    parser.add_argument(
        '--search-lr',
        type=float,
        help='step size of the weights while they are searched, 0 for '
        'weights at rest (default: that of --lr)')
    parser.add_argument(
        '--fresh',
        action='store_true',
        help="finetune what was searched without Adam's moments of the search")
    parser.add_argument('--temperature', type=float, default=2.)
    parser.add_argument('--device', default='cpu', help='e.g. cuda')
    parser.add_argument(
        '--harden', type=float, default=0., help='share of hard masks')
    parser.add_argument('--decay', type=float, help='of importances')
    parser.add_argument('--ratio-lr', type=float)
    parser.add_argument('--ratio-weight', type=float, default=10.)
    args = parser.parse_args(words)
    args.test, args.choices = ([one.split('=', 1) for one in given]
                               for given in (args.test, args.choices))
    return args


def content_of(path, args):
    """What was measured with these settings, an empty file if nothing was."""

    def known(found):
        return {
            name: str(value)
            for name, value in vars(found).items()
            if name not in ('out', 'rows', 'seeds')
        }

    given = known(args)
    if not path.exists():
        write(path, dict(settings=given, results={}))
    content = json.loads(path.read_text())
    # What an older file does not know was as it is by default; moments were
    # not carried over.
    plain = dict(known(settings(['', '', '--train', ''])), fresh='True')
    if {**plain, **content['settings']} != given:
        sys.exit(f'{path} is of other settings, {content["settings"]}: name '
                 'another folder')
    return content


def main():
    """Run what is missing, and print the table."""
    args = settings()
    from transformers import AutoModelForCausalLM, AutoTokenizer
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    original = AutoModelForCausalLM.from_pretrained(args.model)
    original.to(args.device)
    blocks = torch.cat([
        blocks_of(tokenizer,
                  Path(path).read_text(), args.length) for path in args.train
    ]).to(args.device)
    held = torch.arange(len(blocks), device=args.device) % 10 == 0
    data = {'held out': blocks[held]}
    for name, path in args.test:
        data[name] = blocks_of(tokenizer,
                               Path(path).read_text(),
                               args.length)[:args.pieces]
    path = args.out / 'results.json'
    content = content_of(path, args)
    results = content['results']
    harness = Harness(tokenizer, args) if args.choices + args.tasks else None
    original = adapted(original, blocks[~held], args)
    if 'original/0' not in results:
        results['original/0'] = measured(original, harness, data)
    for seed in args.seeds:
        for row in args.rows:
            if f'{row}/{seed}' in results:
                continue
            model, found = smaller(row, original, blocks[~held], data, args,
                                   seed)
            found.update(measured(model, harness, data))
            results[f'{row}/{seed}'] = found
            write(path, content)
            print(f'{row}, seed {seed}: {found}', flush=True)
    print(table(results, args.rows))


if __name__ == '__main__':
    main()
