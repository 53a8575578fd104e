# Copyright (c) dms_razor contributors. All rights reserved.
"""A LightningModule: search, train what was found, write ONNX.

    python examples/loop_lightning.py [--short] [--out FOLDER]
"""
import torch
from _digits import accuracy, arguments, make_data, make_network
from lightning import LightningModule, Trainer, seed_everything
from torch.nn import functional as F
from torch.utils.data import DataLoader

from dms_razor import Search


class Classifier(LightningModule):
    """Searches its network if it is given a search of it."""

    def __init__(self, network, search=None):
        super().__init__()
        self.network, self.search = network, search

    def training_step(self, batch, index):
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log('loss', loss, prog_bar=True)
        return loss if self.search is None else self.search.loss(loss)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=.1, momentum=.9)
        if self.search is not None:
            self.search.attach(optimizer)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, self.trainer.estimated_stepping_batches)
        return [optimizer], [dict(scheduler=schedule, interval='step')]


def fit(model, loader, args):
    trainer = Trainer(
        max_epochs=args.epochs,
        log_every_n_steps=10,
        default_root_dir=args.out)
    trainer.fit(model, loader)


def main():
    args = arguments(__doc__, 'loop_lightning', epochs=20)
    seed_everything(0)
    data, test = make_data()
    loader = DataLoader(data, 64, shuffle=True, drop_last=True)
    network = make_network()
    search = Search(
        network,
        data[0][0][None],
        target='50%',
        total_steps=args.epochs * len(loader))
    fit(Classifier(network, search), loader, args)
    export = search.export(args.out / 'subnet')
    fit(Classifier(export.model), loader, args)
    print(export)
    print(f'accuracy {accuracy(export.model, test):.1%}, {export.onnx()}')


if __name__ == '__main__':
    main()
