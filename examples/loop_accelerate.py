# Copyright (c) dms_razor contributors. All rights reserved.
"""A loop of Accelerate: search, train what was found, write ONNX.

    python examples/loop_accelerate.py [--short] [--out FOLDER]

Gradients of two batches are accumulated: half as many steps as batches. Here
is one process; of several one exports, and all build it by ``build_subnet``.
"""
import torch
from _digits import accuracy, arguments, make_data, make_network
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.nn import functional as F
from torch.utils.data import DataLoader

from dms_razor import Search


def train(accelerator, model, loader, epochs, search=None):
    """Masks and ``attach`` first, ``prepare`` after them."""
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    if search is not None:
        search.attach(optimizer)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            with accelerator.accumulate(model):
                loss = F.cross_entropy(model(images), labels)
                if search is not None:
                    loss = search.loss(loss)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()


def main():
    args = arguments(__doc__, 'loop_accelerate', epochs=20)
    set_seed(0)
    accelerator = Accelerator(gradient_accumulation_steps=2)
    model, (data, test) = make_network(), make_data()
    loader = DataLoader(data, 32, shuffle=True, drop_last=True)
    search = Search(
        model,
        data[0][0][None],
        target='50%',
        total_steps=args.epochs * -(-len(loader) // 2))
    train(accelerator, model, loader, args.epochs, search)
    export = search.export(args.out / 'subnet')
    train(accelerator, export.model, loader, args.epochs)
    print(export)
    print(f'accuracy {accuracy(export.model, test):.1%}, {export.onnx()}')


if __name__ == '__main__':
    main()
