# Ada3D on lip_words, from the recognizer of lip_words_inflated_stage0.py. Choose the fold with
# `--cfg-options fold=1 model.recognizer_checkpoint=...`.
_base_ = ["lip_words_inflated_stage0.py"]
class_file = "{data_root}/classes.txt"
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/lip_words/inflated_stage0/epoch_24.pth",
    clip_shape=(6, 16, 64, 96),
    selector=dict(
        type="SelectionNetwork",
        backbone=dict(type="SmallConvNet", channels=(8, 16, 32), in_channels=6),
        input_size=32,
        motion=True,
        head=dict(type="FrameHead", context=True),
        pretrain="clip",
        weights=None,
        frame_prob=0.7,
        stage_prob=0.9,
        max_logit=3.0,
    ),
    training=dict(distill=3.0),  # some 1,200 clips are few to learn all policies from
    objective=dict(
        type="Reinforce",
        gamma=2.0,
        samples=4,
        reward_temperature=1.0,
        cost="flops",
        budget=0.69,  # GMACs per clip, 0.6 of what the recognizer alone costs
        budget_rate=0.03,
    ),
)
train_cfg = dict(max_epochs=28, val_interval=14)
param_scheduler = []  # TrainingPhaseHook sets the learning rates
optim_wrapper = dict(
    _delete_=True,
    constructor="Ada3DOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=0.02),
    clip_grad=dict(max_norm=10.0),
)
custom_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(name="warmup", epochs=12, recognizer_lr=4e-4, selector_lr=3e-3, schedule="cosine"),
            dict(name="selection", epochs=4, selector_lr=1e-3),
            dict(name="joint", epochs=12, recognizer_lr=2e-4, selector_lr=5e-4, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
val_evaluator = [
    dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy")),
    dict(type="PolicyCostMetric"),
]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best="policy/reward", rule="greater", interval=14))
work_dir = "work_dirs/lip_words/inflated_ada3d"
