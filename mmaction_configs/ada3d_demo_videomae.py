# Ada3D on the small VideoMAE of demo_videomae_stage0.py. Its frames are kept in pairs, each pair with the
# position that it had in the full clip; there is no temporal convolution, so there are no stages.
_base_ = [
    "_base_/models/videomae_small.py",
    "_base_/datasets/generated_squares.py",
    "_base_/schedules/ada3d_small.py",
    "_base_/default_runtime.py",
]
class_file = "{data_root}/classes.txt"
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/demo_videomae/stage0/epoch_30.pth",
    clip_shape=(3, 8, 48, 48),
    selector=dict(
        type="SelectionNetwork",
        backbone=dict(type="SmallConvNet", channels=(8, 16, 32), in_channels=6),
        input_size=32,
        motion=True,
        head=dict(type="FrameHead", context=True),
        pretrain="clip",
    ),
    training=dict(distill=1.0),
    objective=dict(type="Reinforce", gamma=8.0, samples=4, entropy=0.3),
)
custom_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(
                name="warmup",
                epochs=6,
                recognizer_lr=1e-3,
                selector_lr=3e-3,
                schedule="cosine",
                rise=0.1,
            ),
            dict(name="selection", epochs=2, selector_lr=1e-3),
            dict(name="joint", epochs=10, recognizer_lr=3e-4, selector_lr=1e-3, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
val_evaluator = [
    dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy")),
    dict(type="PolicyCostMetric", kinds=dict(static=[0, 1, 2, 3], motion=[4, 5, 6, 7, 8, 9])),
]
test_evaluator = val_evaluator
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", interval=1, save_best="policy/reward", rule="greater")
)
work_dir = "work_dirs/demo_videomae/ada3d"
