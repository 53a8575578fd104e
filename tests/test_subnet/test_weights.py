# Copyright (c) dms_razor contributors. All rights reserved.
import pickle

import pytest
import torch
from torch import nn

from dms_razor.subnet import SubnetError, load_weights, read_weights
from dms_razor.subnet.weights import save_weights


def test_tensors_only_and_loadable_everywhere(tmp_path):
    from mmengine.runner import load_checkpoint
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    save_weights(model, tmp_path / 'subnet.pth')
    assert [file.name for file in tmp_path.iterdir()] == ['subnet.pth']
    state = torch.load(tmp_path / 'subnet.pth', weights_only=True)
    assert type(state) is dict
    assert all(type(value) is torch.Tensor for value in state.values())
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    load_checkpoint(other, str(tmp_path / 'subnet.pth'), strict=True)
    assert torch.equal(other[0].weight, model[0].weight)
    again = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    load_weights(again, tmp_path / 'subnet.pth')
    assert torch.equal(again[1].running_mean, model[1].running_mean)


def test_checkpoints_of_training(tmp_path):
    from mmengine.logging import HistoryBuffer
    model = nn.Linear(2, 3)
    state = {f'module.{name}': p for name, p in model.state_dict().items()}
    torch.save(
        dict(
            state_dict=state,
            meta=dict(epoch=3),
            message_hub=dict(loss=HistoryBuffer([1.], [1]))),
        tmp_path / 'epoch_3.pth')
    weights = read_weights(tmp_path / 'epoch_3.pth')
    assert torch.equal(weights['weight'], model.weight)
    model.weight.data.zero_()
    load_weights(model, state)
    assert not model.weight.any()  # state_dict shares memory


@pytest.mark.parametrize('name', ['model', 'model_state_dict'])
def test_checkpoints_of_loops_of_ones_own(tmp_path, name):
    """As plain_python.md writes them, and PyTorch's tutorials."""
    model = nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters(), .1, momentum=.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({
        name: model.state_dict(),
        'optimizer': optimizer.state_dict()
    }, tmp_path / 'a.pth')
    other = nn.Linear(2, 3)
    load_weights(other, tmp_path / 'a.pth')
    assert torch.equal(other.weight, model.weight)


def test_part():
    state = {'backbone.a': torch.ones(1), 'backbones.a': torch.ones(2)}
    assert list(read_weights(state, 'backbone')) == ['a']
    assert read_weights(state, 'backbone.')['a'].shape == (1, )


def test_not_this_networks(tmp_path):
    model = nn.Linear(2, 3)
    before = model.weight.detach().clone()
    save_weights(nn.Linear(2, 4, bias=False), tmp_path / 'other.pth')
    with pytest.raises(
            SubnetError,
            match=r"other.pth' is not of this Linear: weight has "
            r'shape \(4, 2\) instead of \(3, 2\), bias is missing. Name'):
        load_weights(model, tmp_path / 'other.pth')
    with pytest.raises(
            SubnetError,
            match='The state dict is not of this '
            'Linear: more is not expected'):
        load_weights(model, dict(model.state_dict(), more=torch.ones(1)))
    assert torch.equal(model.weight, before)


def test_unreadable(tmp_path):
    with pytest.raises(
            SubnetError,
            match='none.pth cannot be loaded: there '
            'is no such file'):
        read_weights(tmp_path / 'none.pth')
    save_weights(nn.Linear(2, 3), tmp_path / 'a.pth')
    whole = (tmp_path / 'a.pth').read_bytes()
    (tmp_path / 'a.pth').write_bytes(whole[:len(whole) // 2])
    with pytest.raises(SubnetError, match='a.pth cannot be read .*truncated'):
        read_weights(tmp_path / 'a.pth')
    for empty in ({}, [1], dict(state_dict=dict(a=1))):
        torch.save(empty, tmp_path / 'b.pth')
        with pytest.raises(
                SubnetError, match="b.pth' holds no weights as "
                'it is nor under'):
            read_weights(tmp_path / 'b.pth')


class Evil:

    def __reduce__(self):
        return print, ('executed', )


def test_no_code_is_run(tmp_path, capsys):
    torch.save(dict(weight=torch.ones(1), x=Evil()), tmp_path / 'evil.pth')
    with pytest.raises(SubnetError, match='could run code'):
        read_weights(tmp_path / 'evil.pth')
    (tmp_path / 'evil.pth').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SubnetError):
        read_weights(tmp_path / 'evil.pth')
    assert 'executed' not in capsys.readouterr().out


def test_the_student_of_a_distillation():
    """MMRazor's names are architecture and teacher; one alone is none."""
    student, teacher = nn.Sequential(nn.Linear(2, 3)), nn.Linear(4, 5)
    both = nn.ModuleDict(dict(architecture=student, teacher=teacher))
    other = nn.Sequential(nn.Linear(2, 3))
    load_weights(other, both.state_dict())
    assert torch.equal(other[0].weight, student[0].weight)
    part = nn.Linear(2, 3)
    load_weights(part, both.state_dict(), part='0')
    assert torch.equal(part.bias, student[0].bias)
    # the distillation itself takes all of it, and only that
    load_weights(both, both.state_dict())
    with pytest.raises(SubnetError, match='teacher.weight is missing'):
        load_weights(both, student.state_dict())
    del both['teacher']
    with pytest.raises(SubnetError, match='architecture.0.weight is not exp'):
        load_weights(other, both.state_dict())


@pytest.mark.parametrize('spoil', [
    lambda value: value * float('nan'),
    lambda value: value / 0,
    lambda value: value.to_sparse(),
    lambda value: value.to('meta'),
    lambda value: value.long(),
    lambda value: value + 1j,
])
def test_numbers_that_no_network_has(spoil):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    for name in ('0.weight', '1.running_var', '0.bias'):
        state = {name: value + 1 for name, value in before.items()}
        state[name] = spoil(state[name])
        if state[name].dtype == torch.int64 and 'running' in name:
            continue  # a buffer may have been saved as any number
        with pytest.raises(SubnetError, match=f'{name} hold.*NaN'):
            load_weights(model, state)
        assert all(
            torch.equal(value, before[name])
            for name, value in model.state_dict().items())


def test_a_module_that_asks_for_its_version(tmp_path):
    """torchvision's MNASNet refuses to load weights of an unknown one."""

    class Versioned(nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state, prefix, metadata, *args):
            if metadata.get('version') != 2:
                raise ValueError(f'version {metadata.get("version")}')
            super()._load_from_state_dict(state, prefix, metadata, *args)

    net, other = (nn.Sequential(Versioned(3, 2)) for _ in range(2))
    save_weights(net, tmp_path / 'subnet.pth')
    load_weights(other, tmp_path / 'subnet.pth')
    assert torch.equal(net[0].weight, other[0].weight)
