# Stage 0: I3D-R50 alone on FCVID, several labels a video.
_base_ = ["i3d_r50_stage0.py"]
data_root = "data/fcvid"
train_list = "{data_root}/train.txt"
val_list = "{data_root}/val.txt"
model = dict(
    cls_head=dict(
        num_classes=239,
        multi_class=True,
        loss_cls=dict(type="BCELossWithLogits"),
        average_clips="score",
    )
)
labels = dict(multi_class=True, num_classes=239)
train_dataloader = dict(dataset=labels)
val_dataloader = dict(dataset=labels)
test_dataloader = dict(dataset=labels)
train_cfg = dict(max_epochs=40)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=40, by_epoch=True, convert_to_iter_based=True)
]
val_evaluator = [dict(type="AccMetric", metric_list=("mean_average_precision",))]
test_evaluator = val_evaluator
