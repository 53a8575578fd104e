# Copyright (c) dms_razor contributors. All rights reserved.
"""What a search of a large language model would be, without its weights.

    python tools/plan_language.py llama --target 5.47G --ranks 1 8

MODEL is a folder or a name on the hub, of which config.json alone is read, or
a type whose default configuration is meant ('llama' is Llama-7B). The network
is built on the meta device, so that nothing of it takes memory; what can be
pruned is proved on a small float64 twin of the same code. Printed are the
units, a network that meets the target with equal ratios, and the memory of a
rank, worked out: a search keeps the weights (``--train full``: float32, with
gradients and two moments of Adam; ``lora``: as they are) and the teacher's in
equal parts on all ranks (FSDP), its own state and the inputs of the layers
(gradient checkpointing) on each. What one layer takes while it runs comes on
top: its gathered weights and its activations. Needs ``dms_razor[llm]``.
"""
import argparse
import copy
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from dms_razor import Search
from dms_razor.llm import modeling

GIB = 2**30
#: What the twin is built with: sizes that differ where a network's may.
TWIN = dict(
    hidden_size=24,
    intermediate_size=40,
    num_attention_heads=4,
    head_dim=6,
    vocab_size=97,
    pad_token_id=None,
    bos_token_id=0,
    eos_token_id=0)


def built(config):
    """Network and float64 twin of a configuration."""
    make = modeling.transformers.AutoModelForCausalLM.from_config
    small = copy.deepcopy(config)
    for name, value in TWIN.items():
        setattr(small, name, value)
    shared = config.num_attention_heads // config.num_key_value_heads
    small.num_key_value_heads = 4 if shared == 1 else 2
    if hasattr(small, 'moe_intermediate_size'):
        small.moe_intermediate_size = 56
    # Grouped products, by which experts run, are none of float64.
    small._experts_implementation = 'eager'
    torch.manual_seed(0)
    twin = make(small).double()
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(.5, 1.5)
    with torch.device('meta'):
        return make(config, dtype=torch.bfloat16), twin


def planned(model, twin, args):
    """The search, on inputs of a few words."""
    # With a mask of its own nothing asks for numbers, which meta has not.
    inputs = dict(
        input_ids=torch.arange(8)[None],
        attention_mask=torch.ones(1, 1, 8, 8).tril().bool())
    return Search(
        model, {
            name: x.to('meta')
            for name, x in inputs.items()
        },
        args.target,
        metric='params',
        batch_size=1,
        twin=twin,
        probe_inputs=inputs,
        layers=args.layers,
        depth=args.depth,
        units={'model.embed_tokens': dict(fixed=not args.hidden)})


def state_bytes(search):
    """Bytes of everything that a search holds for each element."""
    bank, held = search.bank, {}
    for owner in (bank, bank.layout, bank.selector, bank.motion):
        for value in vars(owner).values():
            if isinstance(value, Tensor):
                held[id(value)] = value.numel() * value.element_size()
    sites = [*search.space.mask_sites, *search.space.norm_sites]
    for sliced in search.space.slice_sites.values():
        sites += sliced
    for site in sites:
        held[id(site.index)] = site.index.numel() * 8
    return sum(held.values())


def memory(search, ranks, args):
    """Name -> bytes of a rank."""
    model, config = search.model, search.model.config
    weights = sum(p.numel() for p in model.parameters())
    tokens = args.batch_size * args.length
    full = args.train == 'full'
    return {
        'weights':
        weights * (4 if full else 2) // ranks,
        'gradients, Adam':
        weights * 12 // ranks if full else 0,
        'teacher':
        weights * 2 // ranks if full else 0,
        'search':
        state_bytes(search),
        'inputs of layers':
        2 * tokens * config.hidden_size * config.num_hidden_layers,
    }


def main():
    """Print units, a structure and the memory."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='folder, name on the hub, or type')
    parser.add_argument('--target', default='80%', help='parameters')
    parser.add_argument('--layers', choices=('free', 'tied'), default='free')
    parser.add_argument('--depth', action='store_true')
    parser.add_argument('--hidden', action='store_true')
    parser.add_argument('--train', choices=('full', 'lora'), default='full')
    parser.add_argument('--ranks', type=int, nargs='+', default=[1, 8])
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--length', type=int, default=512)
    args = parser.parse_args()
    configs = modeling.transformers.AutoConfig
    known = '/' in args.model or Path(args.model).exists()
    config = configs.from_pretrained(args.model) if known \
        else configs.for_model(args.model)
    search = planned(*built(config), args)
    units, elements = Counter(), Counter()
    for unit in search.space.units:
        kind = f'{unit.kind} (…{unit.name.rpartition(".")[2]})'
        units[kind] += 1
        elements[kind] += unit.elements
    print('| units | number | elements |\n| --- | --- | --- |')
    for kind, number in units.items():
        print(f'| {kind} | {number} | {elements[kind]:,} |')
    kept = search.project()
    found = search.space.cost(search.keep(kept), 'params')
    whole = sum(p.numel() for p in search.model.parameters())
    print(f'\nparameters: {whole:,}; asked {search.target:,.0f}; found '
          f'{found:,}, {found / search.target:.3%} of it\n')
    print(f'self-check: {search.space.proof.text()}\n')
    rows = {ranks: memory(search, ranks, args) for ranks in args.ranks}
    names = list(rows[args.ranks[0]])
    print(f'GiB of a rank, {args.train}, {args.batch_size} × {args.length} '
          f'words:\n\n| ranks | {" | ".join(names)} | in all |')
    print('| --- ' * (len(names) + 2) + '|')
    for ranks, sizes in rows.items():
        cells = [f'{size / GIB:.2f}' for size in sizes.values()]
        print(f'| {ranks} | {" | ".join(cells)} | '
              f'{sum(sizes.values()) / GIB:.1f} |')


if __name__ == '__main__':
    main()
