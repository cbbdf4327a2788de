"""Operations that write into a value, such as ``x += y`` or ``nn.ReLU(inplace=True)``.

A graph passes values on, and neither the order of operations that do not need each other nor the
memory of a value is kept by the passes. So what is read after a write must take the writer's result,
and what is read elsewhere must not be written into.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from ..errors import Reason
from ..packed.kept_times import with_part, written
from .program import args_of, argument, module_path, operation_name, writes


def versions(node: fx.Node) -> dict[fx.Node, int]:
    """Return how often each tensor that ``node`` takes was written into, by its node."""
    values = {source: source.meta.get("fake") for source in node.all_input_nodes}
    return {n: value._version for n, value in values.items() if isinstance(value, Tensor)}


def note_writes(node: fx.Node, before: dict[fx.Node, int]) -> None:
    """Note in ``node.meta`` the tensor that it has written into.

    Args:
        node: it has just run on values of the meta device.
        before: the `versions` before that.
    """
    written = [n for n, version in before.items() if n.meta["fake"]._version != version]
    if _by_name(node):  # such as squeeze_, which writes no element
        written = [n for n in before if n is node.args[0]]
    if written:
        result = node.meta.get("fake")
        node.meta["writes"] = next((n for n in written if n.meta["fake"] is result), written[0])


def _by_name(node: fx.Node) -> bool:
    return node.op in ("call_method", "call_function") and writes(node.target)


def settle_writes(graph: fx.Graph) -> list[Reason]:
    """Let every read after a write see it, and no other read.

    What has the tensor that was written into then takes the writer's result, views of it are made
    anew of that, and so is what it is a view of; a tensor that others read too is copied before it is
    written into.

    Args:
        graph: as it was traced, with what `note_writes` has noted; it is changed.

    Returns:
        Why the graph does not say what the model does: values that are written into through a view
        of them from which they cannot be made anew, and read afterwards.
    """
    reasons: dict[Reason, None] = {}
    for node in list(graph.nodes):
        if "writes" not in node.meta:
            continue
        # what an earlier write has settled may be another node with the same tensor now
        target = node.meta["writes"]
        source = next(n for n in node.all_input_nodes if n is target or _same(n, target))
        nodes = list(graph.nodes)
        place = nodes.index(node)
        aliases = {n for n in nodes[:place] if n is source or _overlap(n, source)}
        seen = _Renewed(graph, node, source, aliases)
        for reader in nodes[place + 1 :]:
            over = {n for n in reader.all_input_nodes if seen.is_overwritten(n, reader)}
            for used in aliases.intersection(reader.all_input_nodes) - over:
                new = seen.of(used, reader)
                if new is not None:
                    reader.replace_input_with(used, new)
                else:
                    where, writer = module_path(used), module_path(node)
                    why = f"{writer} writes into it through a view; write it out of place"
                    reasons[Reason(where, why)] = None
            if over:  # what comes after it sees that write
                break
        shared = any(not _same(other, source) for other in aliases - {source})
        if shared or len(source.users) > 1 or source.op == "placeholder":
            with graph.inserting_before(node):
                copied = graph.call_method("clone", (source,))
            copied.meta = {**node.meta, "fake": source.meta.get("fake")}
            del copied.meta["writes"]
            node.replace_input_with(source, copied)
    return list(reasons)


def observed_writers(graph: fx.Graph, root: nn.Module) -> dict[str, bool]:
    """Find the modules for which it matters whether they write into their input.

    What others read of that input, the passes have settled by what the module did when it was traced.

    Args:
        graph: as it was traced, with the values of the meta device; writes are not settled yet.
        root: where its module paths start.

    Returns:
        Module path -> whether it writes.
    """
    found: dict[str, bool] = {}
    holders: dict[int, list[fx.Node]] = {}  # storage -> the nodes before that have a tensor in it
    for node in graph.nodes:
        value = node.meta.get("fake")
        if node.op == "call_module" and len(node.all_input_nodes) == 1:
            module = root.get_submodule(str(node.target))
            (source,) = node.all_input_nodes
            if hasattr(module, "inplace") and isinstance(source.meta.get("fake"), Tensor):
                before = {source, *holders.get(_storage(source.meta["fake"]), ())}
                readers = {user for holder in before for user in holder.users}
                if readers - before - {node}:
                    found[str(node.target)] = bool(module.inplace)
        if isinstance(value, Tensor):
            holders.setdefault(_storage(value), []).append(node)
    return found


def _storage(value: Tensor) -> int:
    return value.untyped_storage()._cdata


class _Renewed:
    """What stands after a write for the values that share memory with what was written into.

    Args:
        graph: where views are made anew.
        writer: the node that writes.
        source: the node into whose tensor it writes.
        aliases: the nodes before it whose tensors share memory with that.
    """

    def __init__(self, graph: fx.Graph, writer: fx.Node, source: fx.Node, aliases: set[fx.Node]):
        self.graph, self.aliases = graph, aliases
        # a value -> the view of it, on the way to the source
        self.parts: dict[fx.Node, fx.Node] = {}
        part, whole = source, _whole(source)
        while whole in aliases and not _same(whole, source):
            self.parts[whole] = part
            part, whole = whole, _whole(whole)
        self.new: dict[fx.Node, fx.Node | None] = {
            n: writer if n is source or _same(n, source) else None
            for n in aliases
            if n is source or _same(n, source) or ("writes" in n.meta and n not in self.parts)
        }
        if not _same(writer, source):  # its result is another value
            self.new.update(dict.fromkeys(self.new))

    def of(self, node: fx.Node, reader: fx.Node) -> fx.Node | None:
        """Return what ``reader`` must take instead of ``node``; None where nothing says that."""
        if node in self.new:
            return self.new[node]
        if node in self.parts:
            part = self.parts[node]
            new = self.of(part, reader)
            if new is not None:
                with self.graph.inserting_before(reader):
                    new = _with(self.graph, node, part, new)
            self.new[node] = new
            return new
        inputs = {n: self.of(n, reader) for n in node.all_input_nodes if self._carries(n)}
        if not inputs or None in inputs.values():
            self.new[node] = None
        else:
            with self.graph.inserting_before(reader):
                self.new[node] = self.graph.node_copy(node, lambda n: inputs.get(n) or n)
        return self.new[node]

    def is_overwritten(self, node: fx.Node, reader: fx.Node) -> bool:
        """Whether ``reader`` writes all that was written, so that what stands there does not matter."""
        part = self.parts.get(node)
        return (
            part is not None
            and reader.target is written
            and operation_name(part) == "getitem"
            and args_of(reader)[:2] == (node, args_of(part)[1])
            and args_of(reader)[2] is not node
        )

    def _carries(self, node: fx.Node) -> bool:
        """Whether a node has one of the tensors, or several of which one is, as ``chunk`` does."""
        if node in self.aliases:
            return True
        fake = node.meta.get("fake")
        return isinstance(fake, (tuple, list)) and any(map(self._carries, node.all_input_nodes))


# not reshape and flatten, which may copy: it depends on the memory's layout whether they see a write
_VIEWS = {"view", "view_as", "unflatten", "squeeze", "unsqueeze", "getitem", "transpose", "permute"}


def _whole(view: fx.Node) -> fx.Node | None:
    """What a node takes a view of, where `_with` can make it anew."""
    if operation_name(view) in _VIEWS:
        whole = args_of(view)[0]
        if isinstance(whole.meta.get("fake"), Tensor):
            return whole
    return None


def _with(graph: fx.Graph, whole: fx.Node, part: fx.Node, new: fx.Node) -> fx.Node:
    """Make a value anew, with ``new`` in the place of a view of it."""
    name = operation_name(part)
    if name == "getitem":
        made = graph.call_function(with_part, (whole, args_of(part)[1], new))
    elif name == "transpose":
        made = graph.call_method("transpose", (new, *args_of(part)[1:]), dict(part.kwargs))
    elif name == "permute":
        given = argument(part, 1, "dims")
        dims = given if isinstance(given, (tuple, list)) else args_of(part)[1:]
        order = [d % len(dims) for d in dims]
        made = graph.call_method("permute", (new, *map(order.index, range(len(order)))))
    else:
        made = graph.call_method("reshape_as", (new, whole))
    made.meta = {k: v for k, v in part.meta.items() if k != "writes"}
    made.meta["fake"] = whole.meta["fake"]
    return made


def _same(node: fx.Node, other: fx.Node) -> bool:
    """Whether two nodes have the very same tensor."""
    value = node.meta.get("fake")
    return isinstance(value, Tensor) and value is other.meta.get("fake")


def _overlap(node: fx.Node, other: fx.Node) -> bool:
    """Whether the tensors of two nodes have an element in common."""
    one, two = node.meta.get("fake"), other.meta.get("fake")
    if not isinstance(one, Tensor) or not isinstance(two, Tensor):
        return False
    if one is two:
        return True
    storage = one.untyped_storage()
    if storage._cdata != two.untyped_storage()._cdata:
        return False
    marks = torch.zeros(storage.nbytes() // one.element_size(), dtype=torch.bool, device="cpu")
    for value, mark in ((one, True), (two, False)):
        part = marks.as_strided(value.shape, value.stride(), value.storage_offset())
        if mark:
            part.fill_(True)
    return bool(part.any())
