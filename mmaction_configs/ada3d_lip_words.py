# Ada3D on lip_words, from the recognizer of lip_words_stage0.py. Choose the fold with
# `--cfg-options fold=1 model.recognizer_checkpoint=...`.
_base_ = [
    "_base_/models/i3d_r18_lip_words.py",
    "_base_/datasets/lip_words.py",
    "_base_/schedules/ada3d_small.py",
    "_base_/default_runtime.py",
]
class_file = "{data_root}/classes.txt"
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/lip_words/stage0/epoch_30.pth",
    clip_shape=(6, 16, 44, 64),
    selector=dict(
        type="SelectionNetwork",
        backbone=dict(type="SmallConvNet", channels=(8, 16, 32), in_channels=6),
        input_size=32,
        motion=True,
        head=dict(type="FrameHead", context=True),
        pretrain="clip",
        weights=None,
        frame_prob=0.7,  # near the budget from the start
        stage_prob=0.9,
        max_logit=3.0,
    ),
    training=dict(distill=3.0),  # some 1,200 clips are few to learn all policies from
    objective=dict(
        type="Reinforce",
        gamma=2.0,
        samples=4,
        reward_temperature=1.0,  # known clips are right under any policy, but not as surely
        cost="flops",
        budget=0.76,  # GMACs per clip, 0.6 of what the recognizer alone costs
        budget_rate=0.03,
    ),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
custom_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(name="warmup", epochs=12, recognizer_lr=2e-3, selector_lr=3e-3, schedule="cosine"),
            dict(name="selection", epochs=4, selector_lr=1e-3),
            dict(name="joint", epochs=12, recognizer_lr=1e-3, selector_lr=5e-4, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
val_evaluator = [
    dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy")),
    dict(type="PolicyCostMetric"),
]
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=28, val_interval=14)
default_hooks = dict(checkpoint=dict(save_best="policy/reward", rule="greater", interval=14))
work_dir = "work_dirs/lip_words/ada3d"
