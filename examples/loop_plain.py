# Copyright (c) dms_razor contributors. All rights reserved.
"""A loop in plain PyTorch: search, train what was found, write ONNX.

    python examples/loop_plain.py [--short] [--out FOLDER]
"""
import torch
from _digits import accuracy, arguments, make_data, make_network
from torch.nn import functional as F
from torch.utils.data import DataLoader

from dms_razor import Search


def train(model, loader, epochs, search=None, lr=.1):
    """The usual loop; a search adds two lines to it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, epochs * len(loader))
    if search is not None:
        search.attach(optimizer)
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            if search is not None:
                loss = search.loss(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main():
    args = arguments(__doc__, 'loop_plain', epochs=20)
    torch.manual_seed(0)
    data, test = make_data()
    loader = DataLoader(data, 64, shuffle=True, drop_last=True)
    model = make_network()
    search = Search(
        model,
        next(iter(loader))[0][:1],
        target='50%',
        total_steps=args.epochs * len(loader))
    search.show_progress()
    train(model, loader, args.epochs, search)
    export = search.export(args.out / 'subnet')
    train(export.model, loader, args.epochs)
    print(export)
    print(f'accuracy {accuracy(export.model, test):.1%}, {export.onnx()}')


if __name__ == '__main__':
    main()
