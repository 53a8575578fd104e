# Copyright (c) dms_razor contributors. All rights reserved.
"""A loop as timm's training script writes it: search, train, write ONNX.

    python examples/loop_timm.py [--short] [--out FOLDER]

Model, loader and transforms, optimizer, schedule, loss and EMA are timm's.
"""
import torch
from _digits import arguments, make_data
from timm import create_model
from timm.data import create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3, accuracy, random_seed
from torchvision.transforms.functional import to_pil_image

from dms_razor import Search

SIZE = (1, 16, 16)


class Pictures(torch.utils.data.Dataset):
    """As timm has them: its loader sets the transform."""
    transform = None

    def __init__(self, data):
        self.items = [(to_pil_image(image), int(label))
                      for image, label in data]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        image, label = self.items[index]
        return self.transform(image), label


def load(data, training, device):
    return create_loader(
        Pictures(data), SIZE, 64, is_training=training, scale=(.8, 1.),
        hflip=0, mean=(.3, ), std=(.4, ), crop_pct=1., num_workers=0,
        use_prefetcher=False, persistent_workers=False,
        device=device)  # yapf: disable


def train(model, loader, epochs, device, search=None):
    """Returns the moving average of the network."""
    optimizer = create_optimizer_v2(model, 'adamw', lr=4e-3, weight_decay=.05)
    schedule, _ = create_scheduler_v2(optimizer, num_epochs=epochs)
    loss_fn = LabelSmoothingCrossEntropy()
    ema = ModelEmaV3(model, decay=.9)
    if search is not None:
        search.attach(optimizer)
    model.train()
    for epoch in range(epochs):
        for images, labels in loader:
            loss = loss_fn(model(images.to(device)), labels.to(device))
            if search is not None:
                loss = search.loss(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ema.update(model)
        schedule.step(epoch + 1)
    return ema.module


@torch.no_grad()
def top1(model, loader, device):
    meter = AverageMeter()
    for images, labels in loader:
        logits = model.eval()(images.to(device))
        right, = accuracy(logits, labels.to(device))
        meter.update(right.item(), len(labels))
    return meter.avg


def main():
    args = arguments(__doc__, 'loop_timm', epochs=20)
    random_seed(0)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    data, test = make_data()
    loader = load(data, True, device)
    model = create_model('test_resnet', num_classes=10, in_chans=1)
    search = Search(
        model.to(device),
        torch.zeros(1, *SIZE, device=device),
        target='50%',
        total_steps=args.epochs * len(loader))
    train(model, loader, args.epochs, device, search)
    export = search.export(args.out / 'subnet')
    ema = train(export.model, loader, args.epochs, device)
    export.model.load_state_dict(ema.state_dict())
    print(export)
    score = top1(export.model, load(test, False, device), device)
    print(f'accuracy {score:.1f}%, {export.onnx()}')


if __name__ == '__main__':
    main()
