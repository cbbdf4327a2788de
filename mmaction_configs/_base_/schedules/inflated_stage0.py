# A recognizer inflated from MobileNetV2 alone, from its ImageNet weights. The head learns faster than
# what it stands on.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=24, val_interval=6)
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
