"""Real MMAction2 recognizers, made small, and their clips."""

import functools

import pytest
import torch
from mmaction.registry import MODELS
from torch import nn

import ada3d_fx

CLIP = (3, 8, 32, 32)
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]
CALLS = {"cpu": 1, "cuda": 4}  # on a GPU the third one is captured, and the fourth replayed

# Every branch of the ResNet3d family: inflation patterns, temporal strides, pool2, non-local blocks, depths.
RESNETS = {
    "i3d": dict(depth=50, conv1_stride_t=1, pool1_stride_t=1, with_pool2=False),
    "i3d_strided": dict(depth=50, conv1_stride_t=2, pool1_stride_t=2),
    "i3d_pool2": dict(depth=50, conv1_stride_t=1, pool1_stride_t=1),
    "i3d_r18": dict(depth=18, conv1_stride_t=1, pool1_stride_t=1, inflate=(1, 1, 1, 1)),
    "i3d_3x3x3": dict(depth=50, conv1_stride_t=1, pool1_stride_t=1, inflate_style="3x3x3"),
    "i3d_stage_strides": dict(
        depth=18, conv1_stride_t=1, pool1_stride_t=1, inflate=(1, 1, 1, 1), temporal_strides=(1, 2, 1, 2)
    ),
    "nonlocal": dict(
        depth=18,
        conv1_stride_t=1,
        pool1_stride_t=1,
        inflate=(1, 1, 1, 1),
        non_local=((0, 0), (1, 1), (0, 1), (0, 0)),
        non_local_cfg=dict(
            sub_sample=True, use_scale=True, norm_cfg=dict(type="BN3d"), mode="embedded_gaussian"
        ),
    ),
    "nonlocal_dot": dict(
        depth=18,
        conv1_stride_t=2,
        pool1_stride_t=1,
        inflate=(1, 0, 1, 1),
        non_local=((0, 0), (0, 1), (0, 0), (0, 0)),
        non_local_cfg=dict(sub_sample=False, use_scale=False, norm_cfg=None, mode="dot_product"),
    ),
    "c2d": dict(depth=50, conv1_kernel=(1, 7, 7), conv1_stride_t=1, pool1_stride_t=1, inflate=(0, 0, 0, 0)),
}  # fmt: skip


def resnet3d(name="i3d", *, num_classes=5, seed=0, **overrides):
    """A recognizer with random weights and random BatchNorm statistics, in evaluation mode,
    float64."""
    torch.manual_seed(seed)
    backbone = dict(
        type="ResNet3d",
        base_channels=8,
        pretrained2d=False,
        conv1_kernel=(5, 7, 7),
        conv_cfg=dict(type="Conv3d"),
        norm_eval=False,
        inflate=((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0)),
        zero_init_residual=False,
    )
    backbone.update(RESNETS[name], **overrides)
    return build(backbone, 64 * (4 if backbone["depth"] >= 50 else 1), num_classes)


def slowonly(**overrides):
    backbone = dict(
        type="ResNet3dSlowOnly", depth=50, base_channels=8, pretrained=None, lateral=False,
        conv1_kernel=(1, 7, 7), conv1_stride_t=1, pool1_stride_t=1, inflate=(0, 0, 1, 1), norm_eval=False,
    )  # fmt: skip
    torch.manual_seed(0)
    return build({**backbone, **overrides}, 256, 5)


def named(name):
    """The recognizer of a name in RESNETS, or 'slowonly'."""
    return slowonly() if name == "slowonly" else resnet3d(name)


@functools.cache
def shared_conversion(name):
    """``named(name)`` and what it converts to, made once: for tests that leave both unchanged."""
    with torch.random.fork_rng():  # the same draws after it, made anew or not
        model = named(name)
        return model, ada3d_fx.convert(model, CLIP)


def build(backbone, in_channels, num_classes):
    model = MODELS.build(
        dict(
            type="Recognizer3D",
            backbone=backbone,
            cls_head=dict(
                type="I3DHead",
                num_classes=num_classes,
                in_channels=in_channels,
                spatial_type="avg",
                dropout_ratio=0.5,
                average_clips="prob",
            ),
            data_preprocessor=dict(
                type="ActionDataPreprocessor", mean=[0.0] * 3, std=[1.0] * 3, format_shape="NCTHW"
            ),
        )
    )
    return randomise(model)


def randomise(model):
    """Random BatchNorm statistics; evaluation mode, float64."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    model.double().eval()
    return model


def dense_scores(model, clips):
    """The original recognizer, on a dense batch."""
    return model.cls_head(model.backbone(clips))


def clips(n, shape=CLIP, seed=1):
    return torch.randn(
        n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def calls_of(adaptive, path, x, policy):
    """The shapes of what a module takes, one for each time that it is called."""
    taken = []
    handle = adaptive.get_submodule(path).register_forward_hook(
        lambda _, inputs, __: taken.append(tuple(inputs[0].shape))
    )
    adaptive(x, policy)
    handle.remove()
    return taken


def alone(model, x, policy):
    """The scores of each clip's kept frames, by the model as it is, clip by clip."""
    return torch.cat([model(clip[None, :, kept]) for clip, kept in zip(x, policy.frames)])
