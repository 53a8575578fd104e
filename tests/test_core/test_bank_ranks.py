# Copyright (c) dms_razor contributors. All rights reserved.
"""Two processes on the CPU against one that sees both halves of the batch."""
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dms_razor.core import Bank, constraint_loss
from dms_razor.core.bank import mean_over_ranks
from .helpers import MaskedNet, batch, task_loss

STEPS, RANKS = 6, 2


def resource_loss(counts, masks):
    return constraint_loss(MaskedNet.resource()(counts, masks), 60.)


def search(shard=None, poison=None):
    """State of a bank after some steps; the data is new in every step."""
    bank, net = Bank(
        MaskedNet.layout, lr=.05, dtype=torch.float64), MaskedNet()
    done = []
    for step in range(STEPS):
        x, y = batch(8, seed=step)
        if shard is not None:
            x, y = (part.chunk(RANKS)[shard] for part in (x, y))
        loss = task_loss(net, bank.current, (x, y)) + bank.loss_anchor()
        loss.backward()
        if poison is not None and (step, shard) == poison:
            bank.masks.grad[0] = float('inf')
        done.append(bank.update(resource_loss))
    return dict(bank.state_dict(), done=done, masks=bank.masks.detach())


def worker(rank, folder):
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=RANKS)
    try:
        results = dict(
            clean=search(rank),
            poisoned=search(rank, poison=(3, 1)),
            mean=mean_over_ranks(
                torch.tensor([rank, 4. * rank]), torch.device('cpu')))
        torch.save(results, f'{folder}/{rank}.pth')
    finally:
        dist.destroy_process_group()


def test_two_processes_search_what_one_searches(tmp_path):
    mp.spawn(worker, (str(tmp_path), ), nprocs=RANKS)
    first, second = (
        torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        for rank in range(RANKS))
    assert first['mean'].tolist() == second['mean'].tolist() == [.5, 2.]

    for run in ('clean', 'poisoned'):
        done = first[run].pop('done')
        assert done == second[run].pop('done')
        # infinities on one rank drop the step on both
        assert done == [run == 'clean' or step != 3 for step in range(STEPS)]
        for name, value in first[run].items():
            assert value.equal(second[run][name]), name  # bit by bit

    single = search()
    assert first['clean']['order'].equal(single['order'])
    for name in ('ratios', 'importance', 'masks'):
        torch.testing.assert_close(
            first['clean'][name], single[name], rtol=1e-9, atol=1e-12)
    assert bool((single['ratios'] > 0).any())
    assert not first['poisoned']['ratios'].equal(first['clean']['ratios'])


def test_a_single_process_keeps_its_vector():
    vector = torch.tensor([1., 2.])
    assert mean_over_ranks(vector, torch.device('cpu')) is vector
