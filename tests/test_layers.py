"""Imports point one way, the core stands on few packages, and both tests can fail."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ada3d_fx

PACKAGE = Path(ada3d_fx.__file__).parent
TOOLS = PACKAGE.parent / "tools"
# A part of the package, and the parts that it may import. Whatever is under TYPE_CHECKING counts too.
ARROWS = {
    "errors": set(),
    "files": set(),
    "weights": {"errors"},
    "requirements": {"errors"},
    "plan": {"errors"},
    "policy": {"errors", "plan"},
    "distribution": {"errors", "policy"},
    "exits": {"policy"},
    "packed": {"errors", "policy"},
    "tracing": {"errors", "plan", "packed"},
    "elastic": {"errors", "plan", "packed", "tracing"},
    "passes": {"errors", "plan", "packed", "tracing", "elastic"},
    "convert": {"errors", "plan", "policy", "packed", "tracing", "passes"},
    "specialize": {"errors", "plan", "packed", "tracing", "elastic", "passes", "convert"},
    "cost": {
        "errors",
        "policy",
        "distribution",
        "exits",
        "tracing",
        "passes",
        "convert",
        "specialize",
    },
    "inference": {"packed", "passes"},
    "learn": {"errors", "weights", "plan", "policy", "distribution", "inference"},
    "report": {"errors", "files", "plan", "policy"},
    "runtime": {"errors", "requirements"},
    "exporting": {
        "errors",
        "requirements",
        "plan",
        "policy",
        "distribution",
        "exits",
        "packed",
        "tracing",
        "passes",
        "convert",
        "specialize",
        "cost",
        "learn",
        "runtime",
    },
    "export": {
        "errors",
        "files",
        "requirements",
        "convert",
        "specialize",
        "cost",
        "learn",
        "runtime",
        "exporting",
    },
    "progress": set(),
    "values": {"files"},
    "cli": {"errors", "progress", "values"},
}
CORE = set(ARROWS)
ARROWS["compat"] = {"weights"}  # MMAction2 and MMEngine with it
ARROWS["videos"] = CORE | {"__init__", "compat"}
ARROWS["mm"] = ARROWS["videos"] | {"videos"}
ARROWS["provenance"] = ARROWS["mm"] | {"mm"}
ARROWS["timing"] = ARROWS["comparison"] = ARROWS["provenance"] | {"provenance"}
ARROWS["experiments"] = ARROWS["provenance"] | {"provenance", "comparison"}
ARROWS["__init__"] = CORE - {"cli", "values", "progress", "files", "weights", "__init__"}
# Inside a folder, files import those before them only.
ORDER = {
    "packed": "segments packing kept_times windows module_tree time_layout fused_operations time_forms "
    "module_state replay twins fused attention regions tokens batches",
    "tracing": "model shadow whole program checkpoints in_place isolation tracer concrete trace rules",
    "elastic": "labels label_moves sums label_rules labelling writer conversion",
    "passes": "analysis shapes axis_moves rowwise tokens batches layouts group planning programs regions "
    "share attend rewrite fuse fold pipeline",
    "cost": "shapes_only count price executed payoff selector",
    "learn": "backbones heads selector reward losses estimators step clip_selector diagnose",
    "runtime": "contract engines session",
    "exporting": "programs pieces partition branches joining reference parity int8 calibration switches "
    "graph decider description writers",
    "report": "tables reading records statistics figures policy_pictures",
    "videos": "probe probing decoding broken loader timed_pipeline lists inputs streaming transforms",
    "provenance": "command fingerprints made_from makers",
    "timing": "statistics policies networks dense_peers torch_rows engines interleaving training peak_memory "
    "time_profile picture benchmark text",
    "comparison": "matching run fixed_policies rows report compare tradeoff",
    "experiments": "rendering clip_record generated_clips html_page clip_videos clip_selection price_report "
    "price_timing pricing listed paper export_support support decisions evaluation data_check training_profile "
    "training journal inference_summary inference_profile inference calibration_clips exporting",
}
THIRD_PARTY = {"torch", "torchvision", "fvcore", "numpy", "matplotlib", "PIL"}
THIRD_PARTY_OF = {"progress": {"rich"}}  # which comes with MMEngine


def parts_of(path):
    """('passes', 'fold') of a file of the package, ('convert', None) of one at its top."""
    relative = path.relative_to(PACKAGE).with_suffix("")
    return (
        (relative.parts[0], relative.parts[1]) if len(relative.parts) > 1 else (relative.name, None)
    )


def imported(path, source):
    """What a file of the package imports: ('passes', 'fold') for the package's own, other packages'
    names as (None, name)."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((None, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            words = (node.module or "").split(".") if node.module else []
            if not node.level and words[0] != "ada3d_fx":
                yield None, words[0]
                continue
            here = list(path.relative_to(PACKAGE).parts[:-1])
            start = here[: depth - node.level] if node.level else []
            found = [*start, *(words if node.level else words[1:])]
            for alias in node.names:
                target = [*found, alias.name]
                if (PACKAGE / Path(*target)).is_dir() or (PACKAGE / Path(*target)).with_suffix(
                    ".py"
                ).is_file():
                    yield (target[0], target[1] if len(target) > 1 else None)
                elif found:
                    yield (found[0], found[1] if len(found) > 1 else None)
                else:
                    yield "__init__", None


def wrong_arrows(path, source):
    """The imports of a file that the tables above do not allow, as text."""
    folder, name = parts_of(path)
    order = ORDER.get(folder, "").split()
    wrong = []
    for target, inner in imported(path, source):
        if target is None:
            standard = inner in sys.stdlib_module_names
            if (
                folder in CORE
                and not standard
                and inner not in THIRD_PARTY | THIRD_PARTY_OF.get(folder, set())
            ):
                wrong.append(f"{folder}/{name} imports the package {inner}")
        elif target != folder:
            if target not in ARROWS[folder]:
                wrong.append(f"{folder}/{name or ''} imports {target}/{inner or ''}")
        elif (
            order
            and name != "__init__"
            and (inner not in order or order.index(inner) >= order.index(name))
        ):
            wrong.append(f"{folder}/{name} imports {folder}/{inner}, which comes after it")
    return wrong


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def test_imports_point_one_way():
    assert [arrow for path in modules() for arrow in wrong_arrows(path, path.read_text())] == []


def test_every_file_has_its_place():
    for path in modules():
        folder, name = parts_of(path)
        assert folder in ARROWS, path
        if folder in ORDER and name != "__init__":
            assert name in ORDER[folder].split(), path


def circles():
    """Files of mm/ and experiments/ that import each other, directly or not."""
    arrows = {
        parts_of(path): {t for t in imported(path, path.read_text()) if t[0] is not None}
        for path in modules()
    }

    def reached(start):
        seen, ahead = set(), [start]
        while ahead:
            for target in arrows.get(ahead.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    ahead.append(target)
        return seen

    return [part for part in arrows if part in reached(part)]


def test_there_is_no_circle():
    assert circles() == []


@pytest.mark.parametrize(
    "name, line",
    [
        ("policy.py", "from .convert import convert"),
        ("policy.py", "from .mm import build"),
        ("policy.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .packed.twins import TWINS"),
        ("learn/heads.py", "from ..passes import fold"),
        ("packed/segments.py", "from .twins import TWINS"),
        ("report/tables.py", "import mmengine"),
        ("cost/price.py", "from ada3d_fx.mm.config import load_config"),
        ("convert.py", "def f():\n    import mmaction"),
        ("mm/config.py", "from ..experiments import timing"),
    ],
)  # fmt: skip
def test_a_wrong_arrow_is_seen(name, line):
    assert wrong_arrows(PACKAGE / name, line)


PROBE = """
import sys
{before}
import ada3d_fx
found = sorted(m for m in sys.modules if m.split(".")[0] in ("mmengine", "mmcv", "mmaction"))
sys.exit("imported: " + ", ".join(found[:3]) if found else 0)
"""


def probe(before=""):
    return subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before)], capture_output=True, text=True
    )


def test_the_core_imports_no_mm_package():
    result = probe()
    assert result.returncode == 0, result.stderr


def test_that_test_can_fail():
    assert "mmengine" in probe("import mmengine").stderr
