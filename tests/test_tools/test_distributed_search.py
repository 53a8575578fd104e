# Copyright (c) dms_razor contributors. All rights reserved.
"""A search in two processes on the CPU, through gloo."""
import pytest
import torch

CONFIG = '''
custom_imports = dict(imports=['dms_razor.openmmlab', 'rank_state'])
default_scope = 'mmpretrain'
model = dict(
    type='mmrazor.DMS',
    architecture=dict(
        type='ImageClassifier',
        backbone=dict(
            type='ResNet_CIFAR', depth=18, out_indices=(3, ), in_channels=1,
            stem_channels=8, base_channels=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=64)),
    target=0.5,
    search=dict(iters=16, width_only_iters=4),
    mutator=dict(lr=.1),
    input_shape=(1, 8, 8))
data_preprocessor = dict(num_classes=10, mean=[77.8], std=[95.9])
train_dataloader = dict(
    batch_size={batch},
    num_workers=0,
    dataset=dict(
        type='DigitsDataset', split='train', pipeline=[
            dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(by_epoch=False, max_iters=20)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-3))
custom_hooks = [
    dict(type='mmrazor.DMSHook'),
    dict(type='mmrazor.StructureLogHook', interval=5),
    dict(type='mmrazor.ExportSubnetHook', picture=False),
    dict(type='RankStateHook'),
]
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=10))
randomness = dict(seed=0)
'''

# Every rank writes down its masks, ratios and importances at the end.
HOOK = '''
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from dms_razor.openmmlab.hooks.search import dms_of


@HOOKS.register_module()
class RankStateHook(Hook):

    def after_train(self, runner):
        bank = dms_of(runner).search.bank
        torch.save(
            dict(bank.state_dict(), masks=bank.masks.detach(),
                 weight=next(runner.model.parameters()).detach()),
            f'{runner.work_dir}/rank{get_rank()}.pth')
'''


@pytest.fixture
def search(run_tool, tmp_path, monkeypatch):
    """Run a search; returns the state of each rank."""
    (tmp_path / 'rank_state.py').write_text(HOOK)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')

    def run(processes, work_dir=None, *options):
        work_dir = work_dir or tmp_path / f'work{processes}'
        config = tmp_path / f'search{processes}.py'
        config.write_text(CONFIG.replace('{batch}', str(16 // processes)))
        options = ['--work-dir', work_dir, *options]
        if processes == 1:
            run_tool('train.py', config, *options)
        else:
            run_tool('dist_train.sh', config, processes, *options,
                     '--cfg-options', 'sync_bn=torch')
        return work_dir, [
            torch.load(work_dir / f'rank{rank}.pth', weights_only=True)
            for rank in range(processes)
        ]

    return run


def test_ranks_search_together(search):
    """They agree, on what one process finds with the whole batch."""
    work_dir, (first, second) = search(2)
    assert int(first['updates']) == 20 and first['depth_frozen']
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert (work_dir / 'subnet' / 'subnet.json').exists()
    assert (work_dir / 'iter_20.pth').exists()

    # Gradients are averaged over the ranks before they are squared.
    _, (alone, ) = search(1)
    assert alone['ratios'].max() > .1
    torch.testing.assert_close(
        alone['ratios'], first['ratios'], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        alone['importance'].sum(),
        first['importance'].sum(),
        atol=0,
        rtol=1e-2)

    # And one process goes on with what two began.
    begun = work_dir / 'iter_10.pth'
    written = begun.stat().st_mtime_ns
    (work_dir / 'last_checkpoint').write_text(str(begun))
    _, (resumed, ) = search(1, work_dir, '--resume')
    assert begun.stat().st_mtime_ns == written, 'not begun anew'
    assert int(resumed['updates']) == 20
    torch.testing.assert_close(
        alone['ratios'], resumed['ratios'], atol=1e-3, rtol=1e-3)
