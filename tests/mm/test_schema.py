"""Every wrong entry of a config is told by its full key before anything is built, and no right one."""

import copy
from pathlib import Path

import pytest
from mmaction.registry import TRANSFORMS
from mmengine.config import Config

import ada3d_fx.mm  # noqa: F401
from ada3d_fx import Ada3DError
from ada3d_fx.mm import schema
from ada3d_fx.mm.build import build_recognizer
from ada3d_fx.mm.config import load_config, parse_options, read_file
from ada3d_fx.mm.zoo import configs_folder

CONFIGS = Path(__file__).parents[2] / "mmaction_configs"
DEMO, PLAIN, FULL_SIZE = "ada3d_demo", "demo_stage0", "ada3d_i3d_r50"


@pytest.fixture(scope="module")
def loaded():
    return {name: load_config(CONFIGS / f"{name}.py") for name in (DEMO, PLAIN, FULL_SIZE)}


def check(config, *options):
    """Check a config with options set in it, as `load_config` does."""
    changed = copy.deepcopy(config)
    changed.merge_from_dict(parse_options(options))
    schema.check(changed, set(changed) - set(config))


# An option of the demo's config, and what the message says beside its key and value.
WRONG = [
    ("broken_videos.limit=-1", "broken_videos.limit=-1"),
    ("broken_videos.limt=3", "broken_videos={'limt': 3}"),
    # names
    ("model.objective.gama=8", "there is no 'gama'; did you mean 'gamma'?"),
    ("model.objectiv.gamma=8", "there is no 'objectiv'; did you mean 'objective'?"),
    ("modle.objective.gamma=8", "there is no 'modle' in the config; did you mean 'model'?"),
    ("workdir=x", "did you mean 'work_dir'?"),
    ("model.training.distil=1", "did you mean 'distill'?"),
    ("model.testing.treshold=0.5", "did you mean 'threshold'?"),
    ("model.random_policy.stage=0.2", "did you mean 'stages'?"),
    ("model.convert_options.stage=block", "did you mean 'stages'?"),
    ("model.selector.moton=True", "did you mean 'motion'?"),
    ("model.selector.head.typ=MeanHead", "there are hidden, context"),
    ("model.selector.head.hiden=3", "did you mean 'hidden'?"),
    ("model.selector.head.features=3", "there is no 'features'"),
    ("model.selector.plan=1", "there is no 'plan'"),
    ("model.selector.backbone.chanels=(1,2)", "did you mean 'channels'?"),
    ("model.recognizer.backbone.dept=18", "did you mean 'depth'?"),
    ("model.recognizer.backbon.depth=50", "did you mean 'backbone'?"),
    ("model.recognizer.cls_head.num_clases=5", "did you mean 'num_classes'?"),
    ("custom_hooks.0.fases=[]", "did you mean 'phases'?"),
    ("custom_hooks.0.phases.0.epoch=4", "did you mean 'epochs'?"),
    ("train_cfg.max_epoch=3", "did you mean 'max_epochs'?"),
    ("train_cfg.val_intervall=1", "did you mean 'val_interval'?"),
    ("train_dataloader.batchsize=2", "did you mean 'batch_size'?"),
    ("train_dataloader.dataset.pipline=3", "did you mean 'pipeline'?"),
    ("train_dataloader.dataset.ann_fil=x", "did you mean 'ann_file'?"),
    ("train_dataloader.dataset.pipeline.0.max_gb=4", "did you mean 'max_gib'?"),
    ("train_dataloader.dataset.pipeline.1.cliplen=8", "did you mean 'clip_len'?"),
    ("train_dataloader.sampler.shufle=True", "did you mean 'shuffle'?"),
    ("optim_wrapper.optimizer.lrr=1", "did you mean 'lr'?"),
    ("optim_wrapper.optimizr.lr=1", "did you mean 'optimizer'?"),
    ("val_evaluator.0.metric_lists=1", "did you mean 'metric_list'?"),
    ("val_evaluator.1.kind=1", "did you mean 'kinds'?"),
    ("default_hooks.checkpont.interval=2", "it has no type"),
    ("default_hooks.checkpoint.intervall=2", "did you mean 'interval'?"),
    ("randomness.sed=1", "did you mean 'seed'?"),
    ("auto_scale_lr.base_batch=16", "did you mean 'base_batch_size'?"),
    # types of parts
    ("model.type=Ada3DRecogniser", "did you mean 'Ada3DRecognizer'?"),
    ("model.type=ResNet3d", "it is no recognizer"),
    ("model.objective.type=Reinforced", "did you mean 'Reinforce'?"),
    ("model.selector.backbone.type=SmallConvNets", "did you mean 'SmallConvNet'?"),
    ("custom_hooks.0.type=TrainingPhasesHook", "did you mean 'TrainingPhaseHook'?"),
    ("train_dataloader.dataset.type=VideoDatasets", "did you mean 'VideoDataset'?"),
    ("test_dataloader.dataset.pipeline.0.type=DecordInits", "did you mean 'DecordInit'?"),
    ("optim_wrapper.optimizer.type=Adamm", "there is no 'Adamm'"),
    ("optim_wrapper.constructor=Ada3DConstructor", "did you mean 'Ada3DOptimWrapperConstructor'?"),
    # values of another type
    ("model.objective.gamma=eight", "expected a number"),
    ("model.objective.gamma=True", "expected a number"),
    ("model.objective.gamma=[1,2]", "expected a number"),
    ("model.objective.gamma=None", "expected a number"),
    ("model.objective.gamma=(1", "expected a number"),
    ("model.objective.samples=2.5", "expected a whole number"),
    ("model.objective=5", "expected a dict or None"),
    ("model.training=joint", "expected a dict or None"),
    ("model.selector=x.py", "expected a dict or None"),
    ("model.recognizer=5", "expected a dict or text"),
    ("model.recognizer_checkpoint=5", "expected text or None"),
    ("model.clip_shape=8", "expected 4 values"),
    ("model.clip_shape=(3,8,56)", "expected 4 values"),
    ("model.random_part=both", "expected 'none' or 'frames' or 'stages' or None"),
    ("model.selector.motion=1", "expected True or False"),
    ("model.selector.input_size=[1,2]", "expected a whole number or None"),
    ("model.selector.pretrain=yes", "'frame' or 'clip'"),
    ("model.selector.backbone.channels=8", "expected a list, each a whole number"),
    ("model.recognizer.backbone.depth=deep", "expected a whole number"),
    ("custom_hooks=5", "expected a dict with a type"),
    ("custom_hooks.0.phases=4", "expected a list, each a dict"),
    ("custom_hooks.0.phases.0.epochs=1.5", "expected a whole number"),
    ("custom_hooks.0.phases.0.recognizer_lr=fast", "expected a number"),
    ("custom_hooks.1.interval=often", "expected a whole number"),
    ("default_hooks.checkpoint.interval=often", "expected a whole number"),
    ("val_evaluator.1.kinds=static", "expected a dict or None"),
    ("train_dataloader=5", "expected"),
    ("train_dataloader.dataset.pipeline.1.clip_len=eight", "expected a whole number"),
    ("optim_wrapper.optimizer.lr=fast", "expected a number"),
    ("randomness=5", "expected a dict"),
    ("randomness.seed=1.5", "expected a whole number from 0 to 4294967295"),
    ("resume=yes", "expected True or False"),
    ("load_from=5", "expected text or None"),
    ("work_dir=5", "expected text"),
    ("train_cfg.max_epochs=ten", "expected a whole number"),
    ("train_dataloader.batch_size=None", "expected a whole number of at least 1"),
    # out of bounds
    ("model.objective.gamma=nan", "expected a finite number at least 0"),
    ("model.objective.gamma=-5", "expected a finite number at least 0"),
    ("model.objective.budget=0", "expected a finite number above 0"),
    ("model.objective.baseline=mean", "try one of"),
    ("model.objective.cost=macs", "try one of"),
    ("model.training.warmup_full=2", "at least 0 and at most 1"),
    ("model.training.phase=jiont", "there are warmup"),
    ("model.testing.policy=learnt", "there are learned"),
    ("model.exit=x", "expected a number or None"),
    ("model.exit=nan", "expected a finite number above 0 and at most 1"),
    ("model.exit=0", "expected a finite number above 0 and at most 1"),
    ("model.exit=1.5", "expected a finite number above 0 and at most 1"),
    ("model.exit=True", "expected a number or None"),
    ("model.testing.policy=recorded", "belong together"),
    ("model.random_policy.frames=2", "at most 1"),
    ("model.fixed_policy=11010101", "expected text or None"),
    ("model.fixed_policy=11010101-01100", "expected a bit for each frame"),
    ("custom_hooks.0.phases.0.epochs=0", "expected a whole number at least 1"),
    ("custom_hooks.0.phases.0.epochs=-3", "expected a whole number at least 1"),
    ("custom_hooks.0.phases.0.iters=3", "one of epochs and iters"),
    ("custom_hooks.0.phases.0.name=jiont", "there are warmup"),
    ("custom_hooks.0.phases.0.schedule=cos", "there are constant, cosine"),
    ("custom_hooks.0.phases.0.recognizer_lr=-1", "at least 0"),
    ("val_evaluator.1.out_file=policies.txt", "a .json or a .csv file"),
    ("train_cfg.max_epochs=0", "at least 1"),
    ("train_cfg.max_epochs=-1", "at least 1"),
    ("train_cfg.val_interval=0", "at least 1"),
    ("train_dataloader.batch_size=0", "at least 1"),
    ("train_dataloader.num_workers=-1", "at least 0"),
    ("train_dataloader.persistent_workers=True", "needs num_workers above 0"),
    ("auto_scale_lr.base_batch_size=0", "at least 1"),
    ("randomness.seed=-1", "from 0 to 4294967295"),
    ("randomness.seed=4294967296", "from 0 to 4294967295"),
]
WRONG_ELSEWHERE = [
    (PLAIN, "model.backbone.dept=18", "did you mean 'depth'?"),
    (PLAIN, "model.backbon.depth=50", "did you mean 'backbone'?"),
    (PLAIN, "model.cls_head.num_classes=ten", "expected a whole number"),
    (PLAIN, "model.neck=5", "expected a dict with a type"),
    (PLAIN, "param_scheduler.0.gama=1", "there is no 'gama'"),
    (PLAIN, "param_scheduler.0.type=OneCycle", "did you mean 'OneCycleLR'?"),
    (FULL_SIZE, "model.selector.backbone.width=0.5", "did you mean 'width_mult'?"),
    (FULL_SIZE, "model.selector.backbone.type=torchvision.resnet19", "torchvision.resnet18"),
]


@pytest.mark.parametrize(
    "name, option, message", [(DEMO, *row) for row in WRONG] + WRONG_ELSEWHERE, ids=str
)
def test_a_wrong_entry_is_told_by_its_key(loaded, name, option, message):
    with pytest.raises(Ada3DError) as error:
        check(loaded[name], option)
    text = str(error.value)
    known = option.partition("=")[0].split(".")
    keys = [
        ".".join(known[:n]) for n in range(len(known), 0, -1)
    ]  # a stray part is told as a whole
    assert message in text and any(text.startswith(key) for key in keys), text
    assert "\n" not in text


def test_all_wrong_entries_are_told_at_once(loaded):
    options = ["objective.gama=8", "training.warmup_full=2", "training.distill=-1",
               "testing.threshold=x", "selector.head.hiden=3"]  # fmt: skip
    with pytest.raises(Ada3DError) as error:
        check(loaded[DEMO], *(f"model.{option}" for option in options), "train_cfg.val_interval=0")
    lines = str(error.value).splitlines()
    assert lines[0] == "config: 6 entries are wrong:"
    for option in [*options, "train_cfg.val_interval=0"]:
        assert any(option.split("=")[0] in line for line in lines[1:])


RIGHT = [
    "broken_videos.limit=0.01",
    "model.objective.gamma=8", "model.objective.budget=None", "model.objective.samples=2",
    "model.training.phase=joint", "model.selector.pretrain=True", "model.selector.head=None",
    "model.convert_options.stages=block", "model.random_part=frames", "model.testing=None",
    "model.clip_shape=[3,8,48,56]", "custom_hooks.0.phases.0.epochs=4", "train_cfg.max_epochs=3",
    "optim_wrapper.optimizer.lr=1", "optim_wrapper.clip_grad.max_norm=1", "randomness.seed=0",
    "randomness.seed=None", "auto_scale_lr.base_batch_size=64", "load_from=x.pth", "env_cfg.a=1",
    "train_dataloader.dataset.pipeline.0.num_threads=2", "default_hooks.timer=None",
    "train_dataloader.num_workers=2", "train_dataloader.num_batch_per_epoch=3", "resume=True",
    "val_evaluator.1.kinds.rare=[1,2]", "custom_hooks.1.priority=LOW", "data_root=elsewhere",
]  # fmt: skip


def test_right_entries_pass(loaded):
    for option in RIGHT:
        check(loaded[DEMO], option)


def test_a_class_of_ones_own_may_take_what_it_likes(loaded):
    @TRANSFORMS.register_module(force=True)
    class OwnTransform:
        def __init__(self, size, **others):
            self.sizes = others.pop("sizes", None)

    check(loaded[DEMO], "train_dataloader.dataset.pipeline.4.size=3", *OWN)
    with pytest.raises(Ada3DError, match="it has no 'size', which it needs"):
        check(loaded[DEMO], *OWN)


OWN = [f"train_dataloader.dataset.pipeline.4.{entry}" for entry in ("type=OwnTransform", "sizes=1")]
# What MMAction2 ships and cannot build: of detectors without MMDetection, of a localizer that its
# package lacks, and of two slips in configs of TSM.
BROKEN = {
    "FastRCNN": "model.type='FastRCNN': there is no 'FastRCNN'",
    "DRN": "model.type='DRN': there is no 'DRN'",
}
BROKEN_CONFIGS = {
    "tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_kinetics400-rgb.py": "pipeline.2.io_backend",
    "tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_sthv2-rgb.py": "test_dataloader.pipeline",
}


@pytest.mark.slow
def test_shipped_configs_of_mmaction2_pass():
    """All that the support table covers, and all others; tests/mm/test_configs.py loads our own."""
    checked = 0
    for path in sorted(configs_folder().rglob("*.py")):
        if {"_base_", "recognition_audio"} & set(path.parts):  # sound is not for us
            continue
        config = Config.fromfile(path)
        if not isinstance(config.get("model"), dict):
            continue
        try:
            schema.check(config)
        except Ada3DError as error:
            expected = BROKEN.get(config.model.get("type"), BROKEN_CONFIGS.get(path.name))
            assert expected and expected in str(error), f"{path}: {error}"
            assert config.model.type != "Recognizer3D"
        checked += 1
    assert checked > 200


# ------------------------------------------------------------------------------ options and files


@pytest.mark.parametrize(
    "option, message",
    [
        ("noequals", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("--x=3", "expected KEY=VALUE"),
        ("model.objective.gamma=[1,2", "Imbalanced brackets"),
        ("model.objective.gamma=((1,2)", "Imbalanced brackets"),
        ("custom_hooks.0.phases.9.epochs=4", "Index 9 exceeds"),
        ("custom_hooks.0.phases.x.epochs=4", "no place"),
        ("model.objective.gamma.x=3", "no place"),
        ("work_dir.x=3", "no place"),
        ("a..b=3", "there is no 'a' in the config"),
        ("model=5", "has no model"),
        ("model.objectiv.gamma=8", "did you mean 'objective'"),
    ],
)
def test_odd_options(option, message):
    with pytest.raises(Ada3DError, match=message):
        load_config(CONFIGS / f"{DEMO}.py", [option])


def test_options_keep_the_spaces_of_text():
    options = parse_options(["data_root=/my data", "a='b c'", "n=( 1, 2 )", "x= 3", "y=None"])
    assert options == {"data_root": "/my data", "a": "b c", "n": (1, 2), "x": 3, "y": None}


@pytest.mark.parametrize(
    "text, message",
    [
        ("model = dict(\n", "line 1: SyntaxError"),
        ("model = dict(type=name)\n", "NameError: name 'name' is not defined"),
        ("_base_ = ['absent.py']\n", "FileNotFoundError.*absent.py"),
        ("_base_ = ['wrong.py']\n", "SyntaxError"),
        ("custom_imports = dict(imports=['no_such_package'])\n", "ImportError"),
        ("model = 1 / 0\n", "ZeroDivisionError"),
        ("a = 1\n", "has no model"),
        ("model = dict(backbone=dict(type='C3D'))\n", "model=.*: it has no type"),
        ("model = dict(type='C3D')\n", "it is no recognizer"),
        ("model = dict(type='Nothing3D')\n", "there is no 'Nothing3D'"),
    ],
)
def test_odd_files(tmp_path, text, message):
    (tmp_path / "wrong.py").write_text("model = dict(\n")
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises(Ada3DError, match=message) as error:
        load_config(path)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    for path, content in (("a.txt", b"text"), ("b.py", b"\xff\xfe\x00"), ("c.json", b"{")):
        (tmp_path / path).write_bytes(content)
        with pytest.raises(Ada3DError, match=path):
            read_file(tmp_path / path)
    with pytest.raises(Ada3DError, match="no file at"):
        read_file(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"backbone": {"type": "ResNet3d", "depth": 17}}, "invalid depth 17"),
        ({"backbone": {"type": "ResNet3d", "depth": 18, "width": 2}}, "assert set\\(kwargs\\)"),
        ({"backbone": {"type": "Nothing3D"}}, "Nothing3D"),
        ({"type": "ResNet3d", "depth": 18}, "ResNet3d is no recognizer"),
        ({"cls_head": None}, "no cls_head"),
    ],
)
def test_a_recognizer_that_cannot_be_built(change, message):
    model = {"type": "Recognizer3D", "backbone": {"type": "ResNet3d", "depth": 18}, **change}
    with pytest.raises(Ada3DError, match=message):
        build_recognizer(model)
