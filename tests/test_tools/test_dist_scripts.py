# Copyright (c) dms_razor contributors. All rights reserved.
"""The shell scripts, with two processes on the CPU and without Slurm."""
import stat

import torch

SRUN = '''#!/usr/bin/env bash
# Says what it was given, then runs the command as the only task.
echo "srun: $*"
while [[ $1 == -* ]]; do
    if [ "$1" = -p ]; then shift; fi
    shift
done
export SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODELIST=host
exec "$@"
'''
SCONTROL = '''#!/usr/bin/env bash
echo 127.0.0.1
'''


def test_two_processes_train_and_test(run_tool, config, tmp_path):
    """SyncBN, and each image seen by one process: half the iterations."""
    output = run_tool('dist_train.sh', config, 2, '--work-dir',
                      tmp_path / 'work', '--cfg-options', 'sync_bn=torch')
    assert 'Distributed training: True' in output
    checkpoint = torch.load(
        tmp_path / 'work' / 'epoch_1.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 2
    output = run_tool('dist_test.sh', config, tmp_path / 'work/epoch_1.pth', 2)
    assert 'accuracy/top1' in output


def test_slurm_scripts(run_tool, config, tmp_path, monkeypatch, free_port):
    programs = tmp_path / 'bin'
    programs.mkdir()
    for name, text in (('srun', SRUN), ('scontrol', SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv('PATH', str(programs), prepend=':')
    monkeypatch.setenv('MASTER_PORT', str(free_port))
    output = run_tool(
        'slurm_train.sh', 'part', 'job', config, tmp_path / 'work', GPUS='1',
        GPUS_PER_NODE='0', SRUN_ARGS='--quiet')  # yapf: disable
    assert 'srun: -p part --job-name=job --ntasks=1 ' in output
    assert '--quiet' in output and 'gres' not in output
    assert (tmp_path / 'work' / 'epoch_1.pth').exists()
    output = run_tool(
        'slurm_test.sh',
        'part',
        'job',
        config,
        tmp_path / 'work/epoch_1.pth',
        GPUS='1')
    assert '--gres=gpu:8 --ntasks-per-node=8' in output
    assert 'accuracy/top1' in output


def test_missing_arguments_print_the_usage(repo):
    import subprocess
    for name in ('dist_train', 'dist_test', 'slurm_train', 'slurm_test'):
        result = subprocess.run(['bash', repo / 'tools' / f'{name}.sh'],
                                capture_output=True,
                                text=True)
        assert result.returncode == 2
        assert f'bash tools/{name}.sh ' in result.stderr
