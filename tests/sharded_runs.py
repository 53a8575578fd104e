# Copyright (c) dms_razor contributors. All rights reserved.
"""A search of a decoder on one rank, or sharded on several by torchrun.

    torchrun --nproc_per_node 2 tests/sharded_runs.py OUT
"""
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from language_nets import decoder
from torch.distributed import fsdp

from dms_razor import Search

STEPS = 30


def sharded(net):
    for layer in net.layers:
        fsdp.fully_shard(layer)
    return fsdp.fully_shard(net)


def run(out, when='never', rank=0, ranks=1):
    """Search, export to ``out``, and save the ratios of each rank beside it;
    sharded 'before' the search, 'after' it, or 'never'."""
    words = torch.randint(
        0, 31, (STEPS, 4, 7), generator=torch.Generator().manual_seed(0))
    net = decoder(heads=4, key_heads=2)
    net = sharded(net) if when == 'before' else net
    search = Search(
        net, words[0][:1], '60%', metric='params', total_steps=STEPS)
    net = sharded(net) if when == 'after' else net
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    search.attach(optimizer)
    for batch in words:
        own = batch.chunk(ranks)[rank]
        optimizer.zero_grad()
        search.loss(net(own).square().mean()).backward()
        optimizer.step()
    export = search.export(out / 'subnet', picture=False)
    torch.save(search.bank.ratios, out / f'ratios{rank}.pt')
    if when != 'never':
        assert (out / 'subnet' / 'subnet.json').exists(), 'on every rank'
        whole = export.model(words[0])
        again = sharded(export.model)  # as for its training
        assert torch.allclose(again(words[0]), whole)
        net(own).sum().backward()  # the supernet goes on


if __name__ == '__main__':
    dist.init_process_group('gloo')
    for moment in ('before', 'after'):
        folder = Path(sys.argv[1]) / moment
        folder.mkdir(exist_ok=True)
        run(folder, moment, dist.get_rank(), dist.get_world_size())
    dist.destroy_process_group()
