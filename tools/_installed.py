# Copyright (c) dms_razor contributors. All rights reserved.
"""What tools/install_matrix.py runs in each environment: is all of it there?

Started in an empty folder by the environment's own interpreter, which knows
the installed package and not the source tree.
"""
import platform
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

PACKAGES = ('torch', 'torchvision', 'numpy', 'mmengine', 'mmpretrain',
            'mmrazor', 'mmdet')


def versions() -> None:
    print('Python', platform.python_version())
    for package in PACKAGES:
        try:
            print(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            pass


def command(*arguments: str) -> str:
    """Run the installed ``dms-razor``; its output."""
    script = Path(sysconfig.get_path('scripts')) / 'dms-razor'
    done = subprocess.run([str(script), *arguments],
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode:
        raise SystemExit(f'{done.stdout}\ndms-razor {" ".join(arguments)}: '
                         f'exit {done.returncode}, '
                         f'{done.stdout.strip().splitlines()[-1]}')
    return done.stdout


def installed() -> Path:
    """The folder of the package, which must not be a source tree."""
    import dms_razor
    folder = Path(dms_razor.__file__).parent
    assert (folder / '.mim' / 'configs').is_dir(), f'no wheel: {folder}'
    return folder


def plain() -> None:
    """Search, export, build again, equal; the command and its help."""
    installed()
    import torch
    from torch import nn

    from dms_razor import Search
    from dms_razor.subnet import build_subnet

    def network() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(24, 4))

    torch.manual_seed(0)
    model, images = network(), torch.randn(8, 3, 12, 12)
    labels = torch.arange(8) % 4
    search = Search(model, images[:1], target='50%', total_steps=30)
    optimizer = torch.optim.SGD(model.parameters(), lr=.05)
    search.attach(optimizer)
    for _ in range(30):
        loss = search.loss(nn.functional.cross_entropy(model(images), labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    export = search.export('subnet')
    again = build_subnet(network(), 'subnet/subnet.json', 'subnet/subnet.pth')
    expected = export.model.eval()(images)
    torch.testing.assert_close(again.eval()(images), expected)
    with search.masks('subnet'):
        torch.testing.assert_close(model.eval()(images), expected)
    assert Path('subnet/structure.png').stat().st_size > 1000
    assert Path('subnet/report.html').stat().st_size > 1000
    loaded = torch.jit.load(str(export.torchscript()))
    torch.testing.assert_close(loaded(images), expected)
    assert 'dms-razor search my_search.py' in command('--help')


def openmmlab() -> None:
    """Each config of the wheel is read; one is searched, tested, exported."""
    configs = installed() / '.mim' / 'configs'
    import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)
    from mmengine.config import Config
    paths = sorted(
        path for path in configs.rglob('*.py') if '_base_' not in path.parts)
    for path in paths:
        Config.fromfile(path)
    assert len(paths) > 60, paths
    config = str(configs / 'quickstart' / 'dms-resnet34-50p_digits.py')
    assert 'reachable  yes' in command('space', config)
    command('search', config, '--work-dir', 'work', '--cfg-options',
            'model.search.epochs=1', 'model.search.width_only_epochs=1',
            'train_cfg.max_epochs=2')
    command('export', 'work/subnet')
    assert Path('work/subnet/subnet.onnx').exists()


if __name__ == '__main__':
    {
        'versions': versions,
        'plain': plain,
        'openmmlab': openmmlab
    }[sys.argv[1]]()
