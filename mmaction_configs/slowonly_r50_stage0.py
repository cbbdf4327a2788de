# Stage 0: the SlowOnly-R50 recognizer alone.
_base_ = ["i3d_r50_stage0.py"]
model = dict(
    backbone=dict(
        _delete_=True,
        type="ResNet3dSlowOnly",
        pretrained="torchvision://resnet50",
        depth=50,
        lateral=False,
        conv1_kernel=(1, 7, 7),
        conv1_stride_t=1,
        pool1_stride_t=1,
        inflate=(0, 0, 1, 1),
        norm_eval=False,
    )
)
