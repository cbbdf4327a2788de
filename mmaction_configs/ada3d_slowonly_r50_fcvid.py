# Ada3D with SlowOnly-R50, 8 frames, on FCVID: several labels a video, mAP (table 4).
_base_ = ["ada3d_slowonly_r50.py"]
data_root = "data/fcvid"
train_list = "{data_root}/train.txt"
val_list = "{data_root}/val.txt"
model = dict(
    recognizer_checkpoint="work_dirs/slowonly_r50_fcvid_stage0/epoch_40.pth",
    recognizer=dict(
        cls_head=dict(
            num_classes=239,
            multi_class=True,
            loss_cls=dict(type="BCELossWithLogits"),
            average_clips="score",
        )
    ),
    objective=dict(multi_label="top1"),
)
labels = dict(multi_class=True, num_classes=239)
train_dataloader = dict(dataset=labels)
val_dataloader = dict(dataset=labels)
test_dataloader = dict(dataset=labels)
val_evaluator = [
    dict(type="AccMetric", metric_list=("mean_average_precision",)),
    dict(type="PolicyCostMetric"),
]
test_evaluator = val_evaluator
