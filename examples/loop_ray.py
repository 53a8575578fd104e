# Copyright (c) dms_razor contributors. All rights reserved.
"""Ray Tune: a search for each budget, side by side; train, write ONNX.

    python examples/loop_ray.py [--short] [--out FOLDER]
"""
import torch
from _digits import accuracy, arguments, make_data, make_network
from loop_plain import train
from ray import tune
from torch.utils.data import DataLoader

from dms_razor import Search


def trial(config):
    """One search, and a training of what it finds; runs in a worker of Ray."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data, test = make_data()
    loader = DataLoader(data, 64, shuffle=True, drop_last=True)
    model = make_network()
    search = Search(
        model,
        data[0][0][None],
        target=config['target'],
        total_steps=config['epochs'] * len(loader))
    search.on_step(report)
    train(model, loader, config['epochs'], search)
    export = search.export(f'{config["folder"]}/{config["target"]}/subnet')
    train(export.model, loader, config['epochs'])
    score = accuracy(export.model, test)
    cost = export.manifest.macs['counted']
    tune.report(dict(macs=cost, accuracy=score, path=str(export.onnx())))


def report(search):
    """Ray shows and logs what a trial reports, here after each epoch."""
    if search.step_count % 18 == 0:
        tune.report(dict(macs=search.current()))


def main():
    args = arguments(__doc__, 'loop_ray', epochs=20)
    folder = args.out.resolve()  # Ray's workers run elsewhere
    tuner = tune.Tuner(
        tune.with_resources(trial, dict(cpu=1)),
        param_space=dict(
            target=tune.grid_search(['75%', '50%']),
            epochs=args.epochs,
            folder=str(folder)),
        run_config=tune.RunConfig(name='ray', storage_path=str(folder)))
    for result in tuner.fit():
        if result.error:
            raise result.error
        found = result.metrics
        print(f'{result.config["target"]}: {found["macs"]:,} MACs')
        print(f'accuracy {found["accuracy"]:.1%}, {found["path"]}')


if __name__ == '__main__':
    main()
