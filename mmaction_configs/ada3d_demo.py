# Ada3D on the demo's generated clips, from the recognizer of demo_stage0.py.
_base_ = [
    "_base_/models/i3d_r18_small.py",
    "_base_/datasets/generated_clips.py",
    "_base_/schedules/ada3d_small.py",
    "_base_/default_runtime.py",
]
class_file = "{data_root}/classes.txt"
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/demo/stage0/epoch_20.pth",
    clip_shape=(3, 8, 48, 56),
    selector=dict(
        type="SelectionNetwork",
        backbone=dict(type="SmallConvNet", channels=(8, 16, 32), in_channels=6),
        input_size=32,
        motion=True,
        head=dict(type="FrameHead", context=True),
        pretrain="clip",
    ),
    training=dict(distill=1.0),  # the plain recognizer's scores help under all policies
    objective=dict(type="Reinforce", gamma=8.0, samples=4, entropy=0.3),
)
val_evaluator = [
    dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy")),
    dict(type="PolicyCostMetric", kinds=dict(static=[0, 1, 2, 3], motion=[4, 5, 6, 7, 8, 9])),
]
test_evaluator = val_evaluator
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", interval=1, save_best="policy/reward", rule="greater")
)
work_dir = "work_dirs/demo/ada3d"
