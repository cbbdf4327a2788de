"""The rows of a comparison: what each trains and tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cost.price import price_table
from ..provenance.made_from import MadeOtherwise
from . import fixed_policies
from .matching import match_usage, random_phases, shuffled, unit_of
from .run import ComparisonRun, NotMade

# What a row of a file of policies tells of the policy.
POLICY_WORDS = ("frames", "stages", "num_frames", "num_stages")
FULL = {"testing.policy": "full"}
EVERYTHING = {"frames": 1.0, "stages": 1.0}


def all_run(run: ComparisonRun, predict_with: str = "recognizer") -> dict[str, Any]:
    """Return the options of a row of whose clips none exits.

    Args:
        run: of the row.
        predict_with: whose scores predict; rows without a selection network have the recognizer's.
    """
    exits = {} if run.config.model.get("exit") is None else {"exit": None}
    return {"testing.predict_with": predict_with, **exits}


def make(run: ComparisonRun, name: str) -> dict:
    """Return the result of a row, or of a variant; it is made now if it is not there yet.

    Raises:
        MadeOtherwise: it is there, but was made from something else.
    """
    return run.train(name) if name in run.variants else ROWS[name](run)


def check_made(runs: Sequence[ComparisonRun], names: Sequence[str]) -> None:
    """Look, before anything is made, whether all that is there may be used again.

    Rows that depend on one that is not there yet are looked at when they are to be made.

    Raises:
        MadeOtherwise: something was made from something else; all of it is told.
    """
    parts: dict[Path, Sequence[str]] = {}
    for run in runs:
        for name in names:
            try:
                make(run.looking(), name)
            except MadeOtherwise as error:
                parts |= error.parts
            except NotMade:
                continue
    if parts:
        raise MadeOtherwise(parts)


def own_usage(run: ComparisonRun) -> dict[str, float]:
    """Return the fractions of frames and stages that ada3d uses."""
    row, plan = make(run, "ada3d")["row"], run.model.plan
    return {
        "frames": row["frames"] / plan.num_frames,
        "stages": row["stages"] / max(plan.num_stages, 1),
    }


def matched_options(run: ComparisonRun, less: float = 0.0) -> dict[str, Any]:
    """Return the options of random policies that cost what ada3d costs, ``less`` so many GMACs."""
    gmacs = make(run, "ada3d")["row"]["gmacs"] - less
    usage = match_usage(run.model, **own_usage(run), gmacs=gmacs)
    return {"testing.policy": "random", "random_policy": usage}


def upper(run: ComparisonRun) -> dict:
    """Test the recognizer as it is, on all frames with all stages."""
    return run.test("upper", run.start_weights, {**FULL, **all_run(run)})


def random(run: ComparisonRun) -> dict:
    """Test the same recognizer under random policies that cost what ada3d costs."""
    return run.test("random", run.start_weights, {**matched_options(run), **all_run(run)})


def random_ft(run: ComparisonRun) -> dict:
    """Train the recognizer under such policies, for as many steps as ada3d."""
    options = {**matched_options(run), **all_run(run)}
    return run.train("random_ft", random_phases(run.phases), options)


def ada3d(run: ComparisonRun) -> dict:
    """Train the config's own phases; test the greedy policies."""
    return run.train("ada3d", run.phases)


def recognizer_only(run: ComparisonRun) -> dict:
    """Test ada3d by the scores of its recognizer alone."""
    return _under_its_policies(run, "recognizer_only", options=all_run(run))


def recognizer_shuffled(run: ComparisonRun) -> dict:
    """Test ada3d's recognizer alone, under shuffled policies."""
    return _under_its_policies(run, "recognizer_shuffled", shuffled, all_run(run))


def selector_only(run: ComparisonRun) -> dict:
    """Test ada3d by the scores of its selection network alone."""
    ours = run.weights_of(make(run, "ada3d"))
    return run.test("selector_only", ours, all_run(run, "selector"))


def upper_both(run: ComparisonRun) -> dict:
    """Test upper's recognizer together with ada3d's selection network."""
    ours = run.weights_of(make(run, "ada3d"))
    options = {**FULL, **all_run(run, "both")}
    return run.test("upper_both", ours, options, recognizer=run.start_weights)


def random_ft_both(run: ComparisonRun) -> dict:
    """Test random_ft's recognizer together with ada3d's selection network, at ada3d's cost."""
    ours, theirs = make(run, "ada3d"), make(run, "random_ft")
    options = {
        **matched_options(run, less=run.model.classifier_macs / 1e9),
        **all_run(run, "both"),
    }
    recognizer = run.weights_of(theirs)
    return run.test("random_ft_both", run.weights_of(ours), options, recognizer=recognizer)


def shuffled_policies(run: ComparisonRun) -> dict:
    """Test ada3d with its policies shuffled among the clips."""
    return _under_its_policies(run, "shuffled", shuffled)


def upper_ft(run: ComparisonRun) -> dict:
    """Train the recognizer on all frames with all stages, for as many steps as ada3d."""
    phases = random_phases(run.phases)
    unit = unit_of(phases[-1])
    phase = {**phases[-1], unit: sum(phase[unit] for phase in phases)}
    options = {**FULL, "random_policy": EVERYTHING, **all_run(run)}
    return run.train("upper_ft", [phase], options)


def static_ft(run: ComparisonRun) -> dict:
    """Train the recognizer under the best policy that is one for all clips, as long as random_ft.

    The policy may cost what ada3d costs with its selection network, since it needs none.
    """
    gmacs = make(run, "ada3d")["row"]["gmacs"]
    found = fixed_policies.search(run, gmacs, {**FULL, **all_run(run)})
    return _train_fixed(run, "static_ft", found)


def upper_small(run: ComparisonRun) -> dict:
    """Train the recognizer under evenly spaced frames at ada3d's price, all stages on, as long."""
    gmacs = make(run, "ada3d")["row"]["gmacs"]
    found = fixed_policies.evenly(price_table(run.model.recognizer), gmacs)
    return _train_fixed(run, "upper_small", found)


def _train_fixed(run: ComparisonRun, name: str, found: Mapping[str, Any]) -> dict:
    options = {"testing.policy": "fixed", "fixed_policy": found["policy"], **all_run(run)}
    phases = random_phases(run.phases, "fixed")
    return run.train(name, phases, options, told={"fixed_policy": found})


def no_phase1(run: ComparisonRun) -> dict:
    """Train ada3d without the phase of the selection network alone."""
    return run.train("no_phase1", [p for p in run.phases if p["name"] != "selection"])


def no_phase2(run: ComparisonRun) -> dict:
    """Train ada3d without joint training."""
    return run.train("no_phase2", [p for p in run.phases if p["name"] != "joint"])


def random_frames(run: ComparisonRun) -> dict:
    """Train ada3d with random frames of its usage; only the stages are learned."""
    options = {"random_part": "frames", "random_policy": own_usage(run)}
    return run.train("random_frames", run.phases, options)


def random_stages(run: ComparisonRun) -> dict:
    """Train ada3d with random stages of its usage; only the frames are learned."""
    options = {"random_part": "stages", "random_policy": own_usage(run)}
    return run.train("random_stages", run.phases, options)


def _under_its_policies(
    run: ComparisonRun,
    name: str,
    change: Callable[[Sequence[Mapping]], Sequence[Mapping]] = lambda same: same,
    options: Mapping[str, Any] | None = None,
) -> dict:
    """Test ada3d's networks under its own policies, or what ``change`` makes of them.

    Clips that exited have a policy too: none.
    """
    result = make(run, "ada3d")
    policies = change([{word: clip[word] for word in POLICY_WORDS} for clip in result["clips"]])
    clips = [{**clip, **policy} for clip, policy in zip(result["clips"], policies, strict=True)]
    return run.test(name, run.weights_of(result), options or {}, policies=clips)


MAIN = {"upper": upper, "random": random, "random_ft": random_ft, "ada3d": ada3d}
# For configs that predict with both networks.
SCORES = {
    "recognizer_only": recognizer_only,
    "recognizer_shuffled": recognizer_shuffled,
    "selector_only": selector_only,
    "upper_both": upper_both,
    "random_ft_both": random_ft_both,
}
# Those which need a policy of every clip, also of one that exited.
NEED_POLICIES = ("recognizer_only", "recognizer_shuffled")
# One policy for all clips, at ada3d's price.
PEERS = {"static_ft": static_ft, "upper_small": upper_small}
ABLATIONS = {
    "shuffled": shuffled_policies,
    "upper_ft": upper_ft,
    "no_phase1": no_phase1,
    "no_phase2": no_phase2,
    "random_frames": random_frames,
    "random_stages": random_stages,
}
ROWS: dict[str, Callable[[ComparisonRun], dict]] = {**MAIN, **SCORES, **PEERS, **ABLATIONS}
