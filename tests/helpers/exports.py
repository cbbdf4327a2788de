"""Small networks with selection networks of varied opinions, exported once."""

import functools

import torch
from models import CLIP, resnet3d
from torch import nn

import ada3d_fx
from ada3d_fx.learn.backbones import SmallConvNet
from ada3d_fx.learn.heads import FrameHead
from ada3d_fx.learn.selector import SelectionNetwork


@functools.cache
def network(name="i3d_r18", **options):
    """Float32, as exported files are."""
    return ada3d_fx.convert(resnet3d(name).float(), CLIP, **options)


@functools.cache
def selector(classes=0, head=FrameHead, size=16):
    """A selection network that decides otherwise for each clip, as a trained one does."""
    plan = network().plan  # before the seed: it may be made by now, or not
    torch.manual_seed(0)
    options = dict(num_classes=classes, classify_by="clip") if classes else {}
    made = SelectionNetwork(
        plan, SmallConvNet((4, 6)), head, motion=False, input_size=size, **options
    )
    for name in ("frame_out", "stage_out"):
        layer = getattr(made.head, name)
        nn.init.normal_(layer.weight, std=2.0)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():  # statistics of the features, by which they are normalised
        for module in made.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None
        made.train()(clips(64, seed=5))
    return made.eval()


def clips(n, shape=CLIP, seed=0):
    """Random clips whose frames are of different brightness and contrast."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, *shape, generator=generator)
    contrast, brightness = torch.randn(2, n, shape[0], shape[1], 1, 1, generator=generator)
    return noise * contrast + brightness
