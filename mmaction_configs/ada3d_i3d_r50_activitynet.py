# Ada3D with I3D-R50, 8 frames, on ActivityNet: several labels a video, mAP (table 1).
_base_ = ["ada3d_i3d_r50.py"]
data_root = "data/activitynet"
train_list = "{data_root}/train.txt"
val_list = "{data_root}/val.txt"
model = dict(
    recognizer_checkpoint="work_dirs/i3d_r50_activitynet_stage0/epoch_40.pth",
    recognizer=dict(
        cls_head=dict(
            num_classes=200,
            multi_class=True,
            loss_cls=dict(type="BCELossWithLogits"),
            average_clips="score",
        )
    ),
    objective=dict(multi_label="top1"),
)
labels = dict(multi_class=True, num_classes=200)
train_dataloader = dict(dataset=labels)
val_dataloader = dict(dataset=labels)
test_dataloader = dict(dataset=labels)
val_evaluator = [
    dict(type="AccMetric", metric_list=("mean_average_precision",)),
    dict(type="PolicyCostMetric"),
]
test_evaluator = val_evaluator
