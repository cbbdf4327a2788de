# Stage 0: the recognizer inflated from torchvision's MobileNetV2 alone, from its ImageNet weights. The
# head learns faster than what it stands on.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/inflated_mobilenet_v2.py",
    "_base_/datasets/long_videos.py",
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=24, val_interval=4)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=0.02),
    paramwise_cfg=dict(custom_keys=dict(cls_head=dict(lr_mult=5.0))),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=24, by_epoch=True, convert_to_iter_based=True)
]
val_evaluator = [dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy"))]
test_evaluator = val_evaluator
