# Policies learned on Mini-Kinetics-200, frozen, with a recognizer for all of Kinetics-400 (table 3).
# The recognizer starts from a checkpoint trained on Kinetics-400 (i3d_r50_stage0.py, or the model zoo).
_base_ = ["ada3d_i3d_r50.py"]
train_list = "{data_root}/kinetics400_train.txt"
val_list = "{data_root}/kinetics400_val.txt"
model = dict(
    recognizer=dict(cls_head=dict(num_classes=400)),
    recognizer_checkpoint="work_dirs/i3d_r50_kinetics_stage0/epoch_20.pth",
    selector_checkpoint="work_dirs/ada3d_i3d_r50/epoch_100.pth",
)
train_cfg = dict(max_epochs=60)
custom_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[dict(name="transfer", epochs=60, recognizer_lr=0.01, schedule="cosine")],
    ),
    dict(type="PolicyLogHook"),
]
work_dir = "work_dirs/ada3d_i3d_r50_kinetics_transfer"
