# Copyright (c) dms_razor contributors. All rights reserved.
"""Search a small vision transformer and compare it with a narrowed one.

    python tools/compare_transformer.py --seeds 3                # digits
    python tools/compare_transformer.py --data FOLDER --images 10000

For every seed: train the supernet, search it down to the target, train the
searched network and the evenly narrowed one from scratch; all with the same
recipe and number of epochs. FOLDER holds train/CLASS/*.jpg and
test/CLASS/*.jpg (or png); without it the digits of scikit-learn are used.
The evenly narrowed network has all blocks and head sizes and the same share
of embedding, hidden features and heads everywhere. A plain training loop: an
example of dms_razor without a Runner.
"""
import argparse
import copy
import json
import logging
import time
from pathlib import Path
from typing import Dict, Iterator, Tuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from _steps import Network, narrow_uniformly, table
from mmengine.logging import MMLogger
from mmpretrain.models import LinearClsHead, VisionTransformer
from torch import Tensor, nn

from dms_razor.openmmlab import DigitsDataset
from dms_razor.search import Search
from dms_razor.subnet import count_macs, count_params
from dms_razor.subnet.files import write_text


class Classifier(nn.Module):
    """mmpretrain's ViT and linear head, from images to logits."""

    def __init__(self, args: argparse.Namespace, channels: int,
                 side: int) -> None:
        super().__init__()
        self.backbone = VisionTransformer(
            dict(
                embed_dims=args.embed,
                num_layers=args.blocks,
                num_heads=args.heads,
                feedforward_channels=4 * args.embed),
            img_size=side,
            patch_size=args.patch or max(2, side // 8),
            in_channels=channels)
        self.head = LinearClsHead(10, args.embed)
        for module in (self.backbone, self.head):
            module.init_weights()

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, 10]``."""
        return self.head.fc(self.backbone(images)[-1])


def read_digits(split: str):
    """Images uint8 ``[N, 1, 8, 8]`` and labels."""
    items = DigitsDataset(split).load_data_list()
    images = np.stack([item['img'][None] for item in items])
    return torch.from_numpy(images), torch.tensor(
        [item['gt_label'] for item in items])


def read_folder(folder: Path, side: int, number=None):
    """Images uint8 ``[N, 3, side, side]`` and labels.

    ``number`` takes the first images of every class, equally many of each.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [
        (file, label) for label, path in enumerate(classes)
        for file in sorted(path.iterdir())[:number and number // len(classes)]
    ]
    images = [
        cv2.resize(cv2.imread(str(file)), (side, side)).transpose(2, 0, 1)
        for file, _ in files
    ]
    return torch.from_numpy(np.stack(images)), torch.tensor(
        [label for _, label in files])


class Data:
    """A training and a test set, normalised."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.flip = bool(args.data)
        if args.data:
            folder = Path(args.data)
            train = read_folder(folder / 'train', args.size, args.images)
            test = read_folder(folder / 'test', args.size)
        else:
            train, test = read_digits('train'), read_digits('test')
        std, mean = torch.std_mean(train[0].float(), (0, 2, 3), keepdim=True)
        self.train, self.test = (((images.float() - mean) / std, labels)
                                 for images, labels in (train, test))

    def batches(self, size: int):
        """Shuffled, augmented batches of one epoch."""
        images, labels = self.train
        for chosen in torch.randperm(len(images)).split(size):
            if len(chosen) == size:
                yield self.augmented(images[chosen]), labels[chosen]

    def augmented(self, images: Tensor) -> Tensor:
        """Each image shifted by up to an eighth, of a folder mirrored too."""
        side = images.shape[-1]
        pad = max(1, side // 8)
        down, right = torch.randint(0, 2 * pad + 1, (2, len(images)))
        windows = F.pad(
            images, (pad, ) * 4,
            mode='replicate').unfold(2, side, 1).unfold(3, side, 1)
        out = windows[torch.arange(len(images)), :, down, right]
        if not self.flip:
            return out
        return torch.where(
            torch.rand(len(out), 1, 1, 1) < .5, out.flip(-1), out)


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Top-1 on the test set, in percent."""
    model.eval()
    right = sum(
        int((model(images).argmax(1) == labels).sum())
        for images, labels in zip(*(part.split(500) for part in data.test)))
    return 100 * right / len(data.test[1])


def train(model: nn.Module,
          data: Data,
          args: argparse.Namespace,
          search: Search = None) -> float:
    """Train a network, and search it if ``search`` is given; its top-1."""
    optimizer = torch.optim.AdamW([
        dict(
            params=[p for p in model.parameters() if (p.dim() > 1) == matrix],
            weight_decay=decay) for matrix, decay in ((True, .05), (False, 0.))
    ],
                                  lr=args.lr)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        args.lr,
        total_steps=args.epochs * (len(data.train[0]) // args.batch),
        pct_start=.1)
    if search is not None:
        search.attach(optimizer)
    for _ in range(args.epochs):
        model.train()
        for images, labels in data.batches(args.batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels, label_smoothing=.1)
            (loss if search is None else search.loss(loss)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.)
            optimizer.step()
            rate.step()
    return accuracy(model, data)


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """A copy of a network with new weights, to train from scratch."""
    torch.manual_seed(seed)
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.trunc_normal_(parameter, std=.02)
        elif name.endswith('bias'):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)
    return model


def search_subnet(model: nn.Module, data: Data, args: argparse.Namespace,
                  out: Path) -> Tuple[nn.Module, float]:
    """Search and export; returns the subnet and its top-1."""
    epoch = len(data.train[0]) // args.batch
    first, last = (
        args.epochs // 5 if epochs is None else epochs
        for epochs in (args.warmup_epochs, args.width_only_epochs))
    search = Search(
        model,
        data.train[0][:1],
        args.target,
        total_steps=(args.epochs - last) * epoch,
        warmup_steps=first * epoch,
        width_only_steps=last * epoch)
    print(search.preflight().text(), flush=True)
    train(model, data, args, search)
    with search.masks('hard'):
        hard = accuracy(model, data)
    subnet = search.export(out).model
    found = accuracy(subnet, data)
    kept = {
        unit['name']: f'{unit["kept"]}/{unit["total"]}'
        for unit in search.structure()
    }
    print(f'hard supernet {hard:.2f} %, subnet before retraining '
          f'{found:.2f} %\n{json.dumps(kept)}')
    search.close()
    return subnet, found


def one_seed(args: argparse.Namespace, data: Data,
             seed: int) -> Iterator[Tuple[Network, float]]:
    """Lines of the table, each with its top-1."""
    example, out = data.train[0][:1], Path(args.out)
    torch.manual_seed(seed)
    supernet = Classifier(args, *example.shape[1:3])
    plain = copy.deepcopy(supernet)
    yield Network('supernet', Path(),
                  count_macs(plain, (example, )).macs,
                  count_params(plain)), train(plain, data, args)
    folder, even = out / f'subnet-{seed}', out / f'even-{seed}'
    subnet, found = search_subnet(supernet, data, args, folder)
    yield Network.of('searched, not retrained', Path(), folder), found
    search = Search(
        plain, example, args.target, total_steps=1, qk=False, v=False,
        depth=False)  # yapf: disable
    for name, path, model in (('searched', folder, subnet),
                              ('narrowed evenly', even,
                               narrow_uniformly(search, even).model)):
        yield Network.of(name, Path(),
                         path), train(fresh(model, seed), data, args)


def main() -> None:
    """All seeds, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', help='folder with train/ and test/')
    parser.add_argument('--images', type=int, help='train on so many images')
    parser.add_argument('--patch', type=int, help='patch side')
    parser.add_argument('--target', default='50%')
    for phase in ('warmup', 'width-only'):
        parser.add_argument(
            f'--{phase}-epochs', type=int, help='by default a fifth')
    for name, value in dict(
            size=32,
            embed=64,
            blocks=6,
            heads=4,
            epochs=40,
            seeds=1,
            batch=64,
            lr=1e-3).items():
        parser.add_argument(
            f'--{name.replace("_", "-")}',
            type=type(value),
            default=value,
            help=f'{value} by default')
    parser.add_argument('--out', default='work_dirs/compare_transformer')
    args = parser.parse_args()
    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    data, start = Data(args), time.time()
    rows: Dict[str, Network] = {}
    for seed in range(args.seeds):
        for line, top1 in one_seed(args, data, seed):
            rows.setdefault(line.name, line).top1.append(top1)
            print(
                f'{line.name}: {top1:.2f} %, {line.macs:,} MACs, '
                f'{time.time() - start:.0f} s',
                flush=True)
        text = table(list(rows.values()))
        write_text(Path(args.out) / 'table.md', text + '\n')
    print(text)


if __name__ == '__main__':
    main()
