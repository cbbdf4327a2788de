"""One reduced recognizer of each family that MMAction2 ships, and one that nobody ships."""

import copy
import functools

import torch
from einops import rearrange
from mmaction.registry import MODELS
from mmaction.structures import ActionDataSample
from mmengine.model import BaseModule
from models import randomise
from torch import nn

import ada3d_fx


def _slowfast(**fusion):
    path = dict(type="resnet3d", depth=18, pretrained=None, conv1_stride_t=1, pool1_stride_t=1,
                norm_eval=False, zero_init_residual=False)  # fmt: skip
    return dict(
        type="ResNet3dSlowFast",
        pretrained=None,
        resample_rate=4,
        speed_ratio=4,
        channel_ratio=4,
        slow_pathway=dict(
            **path, lateral=True, base_channels=8, fusion_kernel=5, conv1_kernel=(1, 7, 7),
            dilations=(1, 1, 1, 1), inflate=(0, 0, 1, 1),
        ),
        fast_pathway=dict(**path, lateral=False, base_channels=2, conv1_kernel=(5, 7, 7)),
    )  # fmt: skip


_SLOWONLY = dict(
    type="ResNet3dSlowOnly", depth=18, base_channels=8, pretrained=None, lateral=False, norm_eval=False,
    conv1_kernel=(1, 7, 7), conv1_stride_t=1, pool1_stride_t=1, inflate=(0, 0, 1, 1), zero_init_residual=False,
)  # fmt: skip
_CSN = dict(
    type="ResNet3dCSN", pretrained2d=False, pretrained=None, depth=50, base_channels=8, norm_eval=False,
    with_pool2=False, bottleneck_mode="ir", zero_init_residual=False,
)  # fmt: skip
_TPN = dict(
    type="TPN",
    in_channels=(256, 512),
    out_channels=64,
    spatial_modulation_cfg=dict(in_channels=(256, 512), out_channels=512),
    temporal_modulation_cfg=dict(downsample_scales=(8, 8)),
    upsample_cfg=dict(scale_factor=(1, 1, 1)),
    downsample_cfg=dict(downsample_scale=(1, 1, 1)),
    level_fusion_cfg=dict(
        in_channels=(64, 64), mid_channels=(64, 64), out_channels=128, downsample_scales=((1, 1, 1), (1, 1, 1))
    ),
    aux_head_cfg=dict(out_channels=5, loss_weight=0.5),
)  # fmt: skip
_TIMESFORMER = dict(
    type="TimeSformer", num_frames=6, img_size=32, patch_size=16, embed_dims=24, num_heads=2,
    num_transformer_layers=2,
)  # fmt: skip
_VIDEOMAE = dict(
    type="VisionTransformer", img_size=32, patch_size=16, embed_dims=24, depth=2, num_heads=2, num_frames=8,
    drop_path_rate=0.3,
)  # fmt: skip
_TOKEN_HEAD = dict(type="TimeSformerHead", in_channels=24)


@MODELS.register_module()
class TemporalShuffleNet(BaseModule):
    """A backbone that no rule was written for: attention over time by hand, and a convolution inside
    code that cannot be traced."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (3, 3, 3), (1, 2, 2), 1)
        self.inner = _Untraceable()
        self.last = nn.Sequential(nn.Conv3d(8, 16, (3, 1, 1), padding=(1, 0, 0)), nn.GELU())

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = self.inner(x) + x
        tokens = x.permute(0, 3, 4, 2, 1)
        weights = torch.softmax(tokens @ tokens.transpose(3, 4), dim=-1)
        return self.last(x + (weights @ tokens).permute(0, 4, 3, 1, 2))


class _Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0), groups=8)

    def forward(self, x):
        if x.shape[2] > 2:  # a traced value decides a branch
            x = x - x.mean(2, keepdim=True)
        return self.conv(rearrange(x, "n (a b) t h w -> n (b a) t h w", a=2))


def _i3d_head(channels):
    return dict(type="I3DHead", in_channels=channels)


# name -> (backbone, head, clip shape, further parts of the model)
FAMILIES = {
    "slowfast": (_slowfast(), dict(type="SlowFastHead", in_channels=80), (3, 16, 32, 32), {}),
    "c2d": (
        dict(type="C2D", depth=18, pretrained=None, norm_eval=False),
        dict(type="I3DHead", in_channels=512), (3, 8, 32, 32), {},
    ),
    "r2plus1d": (
        dict(type="ResNet2Plus1d", depth=18, pretrained=None, pretrained2d=False, norm_eval=False,
             conv_cfg=dict(type="Conv2plus1d"), norm_cfg=dict(type="SyncBN", requires_grad=True, eps=1e-3),
             conv1_kernel=(3, 7, 7), conv1_stride_t=1, pool1_stride_t=1, inflate=(1, 1, 1, 1),
             spatial_strides=(1, 2, 2, 2), temporal_strides=(1, 2, 2, 2), base_channels=8, zero_init_residual=False),
        _i3d_head(64), (3, 8, 32, 32), {},
    ),
    "csn_ir": (_CSN, _i3d_head(256), (3, 8, 32, 32), {}),
    "csn_ip": ({**_CSN, "bottleneck_mode": "ip"}, _i3d_head(256), (3, 8, 32, 32), {}),
    "x3d": (
        dict(type="X3D", gamma_w=1, gamma_b=2.25, gamma_d=1),
        dict(type="X3DHead", in_channels=432, fc1_bias=False), (3, 8, 32, 32), {},
    ),
    "c3d": (
        dict(type="C3D", out_dim=512), dict(type="I3DHead", in_channels=4096, spatial_type=None), (3, 16, 16, 16), {},
    ),
    "c3d_long": (  # two frames are left at the end: what is flattened depends on the clip's length
        dict(type="C3D", out_dim=1024), dict(type="I3DHead", in_channels=4096, spatial_type=None), (3, 32, 16, 16), {},
    ),
    "tpn": (
        {**_SLOWONLY, "depth": 50, "base_channels": 16, "out_indices": (2, 3)},
        dict(type="TPNHead", in_channels=2048), (3, 8, 32, 32), dict(neck=_TPN),
    ),
    "posec3d": ({**_SLOWONLY, "in_channels": 17, "num_stages": 3, "spatial_strides": (2, 2, 2), "inflate": (0, 1, 1),
                 "temporal_strides": (1, 1, 1), "dilations": (1, 1, 1), "out_indices": (2,),
                 "stage_blocks": (1, 2, 1), "depth": 50}, _i3d_head(128), (17, 8, 16, 16), {}),
    "mvit": (
        dict(type="MViT", arch=dict(embed_dims=8, num_layers=3, num_heads=1, downscale_indices=[1]),
             spatial_size=32, temporal_size=8, drop_path_rate=0.3),
        dict(type="MViTHead", in_channels=16), (3, 8, 32, 32), {},
    ),
    "uniformer": (
        dict(type="UniFormer", depth=[1, 1, 1, 1], img_size=32, embed_dim=[8, 16, 32, 32], head_dim=16,
             drop_path_rate=0.3, pretrained2d=False),
        _i3d_head(32), (3, 8, 32, 32), {},
    ),
    "uniformerv2": (
        dict(type="UniFormerV2", input_resolution=32, patch_size=16, width=24, layers=2, heads=2, t_size=8,
             dw_reduction=1.5, no_lmhra=False, double_lmhra=True, return_list=[0, 1], n_layers=2, n_dim=24,
             n_head=2, mlp_dropout=[0.5, 0.5], clip_pretrained=False, temporal_downsample=True),
        dict(type="TimeSformerHead", in_channels=24), (3, 8, 32, 32), {},
    ),
    "swin": (
        dict(type="SwinTransformer3D", arch=dict(embed_dims=8, depths=[2, 2], num_heads=[2, 2]), out_indices=(1,),
             pretrained2d=False, window_size=(2, 3, 3), drop_path_rate=0.3),
        _i3d_head(16), (3, 8, 32, 32), {},
    ),
    "inflated": (
        dict(type="InflatedNet", net="mobilenet_v2", init="mean",
             net_options=dict(inverted_residual_setting=[[1, 8, 1, 1], [2, 8, 2, 2], [2, 16, 1, 2]])),
        _i3d_head(1280), (3, 8, 32, 32), {},
    ),
    "uniformerv2_8": (  # as most of them are: each frame may be dropped
        dict(type="UniFormerV2", input_resolution=32, patch_size=16, width=24, layers=2, heads=2, t_size=6,
             return_list=[1], n_layers=1, n_dim=24, n_head=2, mlp_dropout=[0.5], clip_pretrained=False,
             backbone_drop_path_rate=0.3),
        _TOKEN_HEAD, (3, 6, 32, 32), {},
    ),
    "timesformer": (_TIMESFORMER, _TOKEN_HEAD, (3, 6, 32, 32), {}),
    "timesformer_joint": ({**_TIMESFORMER, "attention_type": "joint_space_time"}, _TOKEN_HEAD, (3, 6, 32, 32), {}),
    "timesformer_space": ({**_TIMESFORMER, "attention_type": "space_only"}, _TOKEN_HEAD, (3, 6, 32, 32), {}),
    "videomae": (_VIDEOMAE, _TOKEN_HEAD, (3, 8, 32, 32), {}),
    "videomae_learned": (
        {**_VIDEOMAE, "use_learnable_pos_emb": True, "init_values": 0.1},
        _TOKEN_HEAD, (3, 8, 32, 32), {},
    ),
    "custom": (dict(type="TemporalShuffleNet"), _i3d_head(16), (3, 6, 8, 8), {}),
}  # fmt: skip


def config_of(name, num_classes=5, **backbone_options):
    """The model config of a family's reduced recognizer."""
    backbone, head, _, *more = FAMILIES[name]
    head = dict(dropout_ratio=0.5, average_clips="prob", **head, num_classes=num_classes)
    preprocessor = dict(
        type="ActionDataPreprocessor", mean=[0.0] * 3, std=[1.0] * 3, format_shape="NCTHW"
    )
    return dict(
        type="Recognizer3D",
        backbone={**backbone, **backbone_options},
        cls_head=head,
        data_preprocessor=preprocessor,
        **(more[0] if more else {}),
    )


def family(name, seed=0, **backbone_options):
    """A reduced recognizer with random weights, in evaluation mode, float64."""
    torch.manual_seed(seed)
    model = randomise(MODELS.build(config_of(name, **backbone_options)))
    for parameter in model.parameters():  # some start at zero, and would hide what they multiply
        if not parameter.any():
            nn.init.normal_(parameter, 0, 0.1)
    return model


@functools.cache
def shared_family(name):
    """``family(name)`` and what it converts to, made once: for tests that leave both unchanged."""
    with torch.random.fork_rng():  # the same draws after it, made anew or not
        model = family(name)
        return model, ada3d_fx.convert(model, clip_shape=FAMILIES[name][2])


def on_gpu(name):
    """A network of its own on the GPU, its model and its shared twin on the CPU."""
    model, adaptive = shared_family(name)
    moved = ada3d_fx.convert(copy.deepcopy(model), clip_shape=FAMILIES[name][2]).cuda()
    return model, adaptive, moved


def dense(model, clips):
    """The original recognizer's scores; in training, its auxiliary heads run too."""
    features = model.backbone(clips)
    if model.with_neck:
        samples = [ActionDataSample().set_gt_label(0) for _ in clips] if model.training else None
        features, _ = model.neck(features, samples)
    return model.cls_head(features)
