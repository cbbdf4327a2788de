"""The rows in torch: dense ones, ours, ours in each form, and all of them in bfloat16."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..packed.time_forms import FORMS, time_form
from .dense_peers import DensePeers
from .networks import (
    Batch,
    Networks,
    Request,
    Run,
    choose,
    inside_runs,
    policy_runs,
)

BFLOAT16 = "bfloat16"


def torch_runs(peers: DensePeers, networks: Networks, batch: Batch, request: Request) -> list[Run]:
    """Return the rows in torch that a request asks for.

    Args:
        peers: the dense networks.
        networks: what is timed.
        batch: its clips and policies.
        request: with `Request.forms` or on a GPU, ours in each form too; with `Request.amp` the rows
            in bfloat16 too.
    """
    given = [*peers.runs(batch.clips), *policy_runs(networks, batch)]
    if request.forms or networks.device.type == "cuda":
        given += form_runs(networks, batch)
    runs = [*given, *inside_runs(networks, batch)]
    if request.amp:
        own = _chosen_in_bfloat16(networks, batch)
        runs += [in_bfloat16(run, networks) for run in [*given, *inside_runs(networks, own)]]
    return runs


def form_runs(networks: Networks, batch: Batch) -> list[Run]:
    """Return a row for each form of temporal convolutions under each policy that keeps fractions."""
    of_usages = [f"packed, {usage}" for usage in batch.usages]
    return [
        run._replace(name=f"{run.name}, {form}", call=lambda r=run, f=form: _in_form(r, f))
        for run in policy_runs(networks, batch)
        if run.name in of_usages
        for form in FORMS
    ]


def in_bfloat16(run: Run, networks: Networks) -> Run:
    """Return a row under autocast."""
    kind = networks.device.type

    def call() -> object:
        with torch.autocast(kind, torch.bfloat16):
            return run.call()

    return run._replace(name=f"{run.name}, {BFLOAT16}", call=call, precision=BFLOAT16)


def _in_form(run: Run, form: str) -> object:
    with time_form(form):
        return run.call()


def _chosen_in_bfloat16(networks: Networks, batch: Batch) -> Batch:
    """The same with what the selection network chooses in bfloat16: rounding may decide otherwise."""
    if batch.chosen is None:
        return batch
    with torch.inference_mode(), torch.autocast(networks.device.type, torch.bfloat16):
        return replace(batch, chosen=choose(networks, batch))
