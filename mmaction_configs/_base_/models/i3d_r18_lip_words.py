# The small I3D for lip_words: twice as wide as that of the demo, without a stride in its pool, and it
# sees differences of frames.
_base_ = ["i3d_r18_small.py"]
model = dict(
    backbone=dict(in_channels=6, base_channels=16, conv1_kernel=(3, 5, 5), pool1_stride_s=1),
    cls_head=dict(num_classes=10, in_channels=128, dropout_ratio=0.5, label_smooth_eps=0.1),
    data_preprocessor=dict(
        type="DifferencePreprocessor",
        mean=None,  # the pipeline normalises each clip by itself
        std=None,
        blending=dict(type="MixupBlending", num_classes=10, alpha=0.4),
    ),
)
