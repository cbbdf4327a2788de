"""Which temporal convolutions one decision governs, and what the groups are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import Ada3DError

Grouping = str | Mapping[str, str]  # one of GRANULARITIES, or {regex of module path: group's name}
GRANULARITIES = ("stage", "block", "layer")

# How the field calls the parts of a recognizer: a component of a module path -> name of its stage.
STAGE_NAMES = (
    (r"neck", lambda match: "neck"),
    (r"layer(\d+)(_lateral)?", lambda match: f"res{int(match[1]) + 1}"),
    (r"(dense)?block\d+", lambda match: match[0]),  # of RegNet and DenseNet
    (r"inception(\d)\w", lambda match: f"inception{match[1]}"),
    (r"conv(\d)[a-z]", lambda match: f"conv{match[1]}"),
    (r"conv1(_\w+)?|patch_embed\w*", lambda match: "stem"),
)


def group(
    sites: Sequence[str], grouping: Grouping, resolutions: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
    """Group temporal convolutions.

    Args:
        sites: their module paths.
        grouping: how; what a mapping does not match is grouped by stage.
        resolutions: path of a convolution -> the (H, W) that it makes.

    Returns:
        Name of a group -> its sites, both in the order of ``sites``.

    Raises:
        Ada3DError: an unknown granularity, or a pattern that matches nothing.
    """
    overrides: Mapping[str, str] = {}
    granularity = "stage"
    if not isinstance(grouping, str):
        overrides = grouping
    elif grouping in GRANULARITIES:
        granularity = grouping
    else:
        raise Ada3DError(
            f"convert: stages={grouping!r}; expected one of {GRANULARITIES} or a mapping {{regex: name}}"
        )
    for pattern in overrides:
        if not any(re.search(pattern, site) for site in sites):
            raise Ada3DError(
                f"convert: stages: {pattern!r} matches none of the {len(sites)} temporal convolutions, "
                f"such as {', '.join(sites[:3]) or '(none)'}"
            )
    defaults = _default_names(sites, granularity, resolutions)
    groups: dict[str, list[str]] = {}
    for site in sites:
        name = next((name for pattern, name in overrides.items() if re.search(pattern, site)), None)
        groups.setdefault(name or defaults[site], []).append(site)
    return groups


def _default_names(
    sites: Sequence[str], granularity: str, resolutions: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """The name of each site's group.

    'backbone.layer3.0.conv1.conv' is in 'res4' (stage), 'res4.0' (block), itself (layer).
    """
    if granularity == "layer":
        return {site: site for site in sites}
    blocks: dict[str, dict[int, tuple[int, ...]]] = {}  # container -> block -> its resolution
    named = {}
    for site in sites:
        container, block, name = _place(site)
        named[site] = (container, block, name)
        if block is not None and name is None:
            blocks.setdefault(container, {}).setdefault(block, resolutions.get(site, ()))
    ranges = {container: _ranges(sizes) for container, sizes in blocks.items()}
    names = {}
    for site, (container, block, name) in named.items():
        if name is None:
            name = container.removeprefix("backbone.")
            if block is not None and granularity == "stage":
                name += ranges[container][block]
        names[site] = f"{name}.{block}" if granularity == "block" and block is not None else name
    return names


def _place(site: str) -> tuple[str, int | None, str | None]:
    """Where a convolution is.

    Returns:
        Its container, its block's number in it, and the container's name where the field has one.
    """
    parts = site.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    block = None if not first else int(parts[first])  # at the front, the model is a sequence
    head = parts[: first or (2 if parts[0] == "backbone" else 1)]
    for part in parts[:first]:
        for pattern, name in STAGE_NAMES:
            if match := re.fullmatch(pattern, part):
                return ".".join(head), block, name(match)
    return ".".join(head), block, None


def _ranges(resolutions: Mapping[int, tuple[int, ...]]) -> dict[int, str]:
    """What to add to the container's name for each block.

    Nothing if all blocks see one resolution, else the range of blocks that share it.
    """
    runs: list[list[int]] = []
    for block in sorted(resolutions):
        if runs and resolutions[block] == resolutions[runs[-1][-1]]:
            runs[-1].append(block)
        else:
            runs.append([block])
    if len(runs) == 1:
        return dict.fromkeys(resolutions, "")
    words = {run[0]: f"{run[0]}" + (f"-{run[-1]}" if len(run) > 1 else "") for run in runs}
    return {block: f".{words[run[0]]}" for run in runs for block in run}
