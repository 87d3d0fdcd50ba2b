"""Where the parts of a SavedModel's graph run: in requests, while loading, or when saving."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

_INIT_SIGNATURES = ("__saved_model_init_op",)
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
# Their elements are elements of their first input, whatever the other inputs say.
_PASSING_OPS = frozenset(
    {"EnsureShape", "ExpandDims", "Identity", "Reshape", "Squeeze", "StridedSlice"}
)
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_VARIABLE_USES = frozenset({"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"})


class Place(Enum):
    """When a node can run. One that nothing is seen to run counts as run by requests."""

    REQUEST = "a request"
    INITIALISER = "the model's initialiser"
    RESTORE = "restoring variables"
    SAVE = "saving variables"


@dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Attributes:
        proto: The NodeDef.
        function: The function that it stands in; empty for the main graph.
        places: Where it runs.
    """

    proto: Any
    function: str
    places: frozenset[Place]


class GraphPlaces:
    """Looks from a MetaGraphDef's signatures, initialiser and saver at what each of them runs.

    Args:
        meta_graph: The MetaGraphDef.

    Attributes:
        signature_defs: Its SignatureDefs by name.
    """

    def __init__(self, meta_graph: Any) -> None:
        self.signature_defs = dict(meta_graph.signature_def)
        self._main = {node.name: node for node in meta_graph.graph_def.node}
        self._functions = {f.signature.name: f for f in meta_graph.graph_def.library.function}
        self._bodies = {
            name: {node.name: node for node in function.node_def}
            for name, function in self._functions.items()
        }
        self._saver_file = meta_graph.saver_def.filename_tensor_name
        self._assets = {_name(asset.tensor_info.name) for asset in meta_graph.asset_file_def}
        self._inputs = {
            _name(info.name)
            for signature in meta_graph.signature_def.values()
            for info in signature.inputs.values()
        }
        self._callers = self._find_callers()
        self._main_places, self._function_places = self._find_places(meta_graph)

    def nodes(self) -> Iterator[Node]:
        """Yields every node of the main graph and of every function."""
        for name, proto in self._main.items():
            yield Node(proto, "", self._main_places[name])
        for function, body in self._bodies.items():
            for proto in body.values():
                yield Node(proto, function, self._function_places[function])

    def requested_nodes(self) -> Iterator[Node]:
        """Yields the nodes that signatures run, and not those of functions that nothing calls."""
        called = self._reached(
            function
            for name, node in self._main.items()
            if Place.REQUEST in self._main_places[name]
            for function in _called(node)
        )
        return (
            node
            for node in self.nodes()
            if Place.REQUEST in node.places and (not node.function or node.function in called)
        )

    def taken_from_inputs(self, node: Node, position: int) -> set[str] | None:
        """Returns the inputs of signatures, by their nodes, that an input of a node can be.

        None if it can be anything else. Empty in a function that nothing calls.
        """
        found = self._origins(node.function, node.proto.input[position], set())
        return found if found <= self._inputs else None

    def reads_own_asset(self, node: Node, position: int) -> bool:
        """Whether an input of a node can only be the path of one of the model's assets."""
        found = self._origins(node.function, node.proto.input[position], set())
        return bool(found) and found <= self._assets

    def reads_checkpoint(self, node: Node, position: int) -> bool:
        """Whether an input of a node can only be the checkpoint's path, which the loader feeds."""
        found = self._origins(node.function, node.proto.input[position], set())
        return found == {_name(self._saver_file)}

    def _find_callers(self) -> dict[str, list[tuple[str, Any]]]:
        callers: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        for scope, body in (("", self._main), *self._bodies.items()):
            for node in body.values():
                for called in _called(node):
                    callers[called].append((scope, node))
        return callers

    def _find_places(
        self, meta_graph: Any
    ) -> tuple[dict[str, frozenset[Place]], dict[str, frozenset[Place]]]:
        roots: dict[Place, set[str]] = {place: set() for place in Place}
        for name, signature in meta_graph.signature_def.items():
            place = Place.INITIALISER if name in _INIT_SIGNATURES else Place.REQUEST
            infos = [*signature.outputs.values(), *signature.inputs.values()]
            roots[place] |= {_name(info.name) for info in infos}
        for collection in _INIT_COLLECTIONS:
            roots[Place.INITIALISER] |= {
                _name(name) for name in meta_graph.collection_def[collection].node_list.value
            }
        roots[Place.SAVE].add(_name(meta_graph.saver_def.save_tensor_name))
        roots[Place.RESTORE].add(_name(meta_graph.saver_def.restore_op_name))

        main: dict[str, set[Place]] = {name: set() for name in self._main}
        for place, names in roots.items():
            for name in self._ancestors(names):
                main[name].add(place)
        functions: dict[str, set[Place]] = {name: set() for name in self._functions}
        for name, places in main.items():
            for function in self._reached(_called(self._main[name])):
                functions[function] |= places or {Place.REQUEST}
        return (
            {name: frozenset(places or {Place.REQUEST}) for name, places in main.items()},
            {name: frozenset(places or {Place.REQUEST}) for name, places in functions.items()},
        )

    def _ancestors(self, names: Iterable[str]) -> set[str]:
        seen: set[str] = set()
        waiting = [name for name in names if name in self._main]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += [
                    _name(value) for value in self._main[name].input if _name(value) in self._main
                ]
        return seen

    def _reached(self, names: Iterable[str]) -> set[str]:
        seen: set[str] = set()
        waiting = [name for name in names if name in self._functions]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                for node in self._bodies[name].values():
                    waiting += [called for called in _called(node) if called in self._functions]
        return seen

    def _origins(self, scope: str, tensor: str, seen: set[tuple[str, str]]) -> set[str]:
        """Returns the main graph's nodes that a value comes from unchanged, or a stranger's name.

        Follows what passes elements on, function arguments to every call, and variables to every
        assignment.
        """
        name = _name(tensor)
        if (scope, name) in seen:
            return set()
        seen.add((scope, name))
        body = self._bodies[scope] if scope else self._main
        node = body.get(name)
        if node is None and scope:
            return self._argument_origins(scope, name, seen)
        if node is None:
            return {f"{name} (absent)"}
        if node.op in _PASSING_OPS:
            return self._origins(scope, node.input[0], seen)
        if node.op == "ReadVariableOp" and not scope:
            return self._variable_origins(_name(node.input[0]), seen)
        return {name} if not scope else {f"{scope}/{name}"}

    def _argument_origins(self, scope: str, name: str, seen: set[tuple[str, str]]) -> set[str]:
        arguments = [argument.name for argument in self._functions[scope].signature.input_arg]
        found: set[str] = set()
        for caller_scope, caller in self._callers[scope]:
            if caller.op not in _CALLS or name not in arguments:
                return {f"{scope}/{name}"}
            found |= self._origins(caller_scope, caller.input[arguments.index(name)], seen)
        return found

    def _variable_origins(self, handle: str, seen: set[tuple[str, str]]) -> set[str]:
        """Follows a variable that only the main graph sees, by one handle."""
        stranger = {f"{handle} (variable)"}
        if handle not in self._main or self._main[handle].op != "VarHandleOp":
            return stranger
        key = _shared_name(self._main[handle])
        handles = [
            node
            for body in (self._main, *self._bodies.values())
            for node in body.values()
            if node.op == "VarHandleOp" and _shared_name(node) == key
        ]
        uses = [n for n in self._main.values() if any(_name(v) == handle for v in n.input)]
        if len(handles) != 1 or any(node.op not in _VARIABLE_USES for node in uses):
            return stranger
        found: set[str] = set()
        for node in uses:
            if node.op == "AssignVariableOp":
                found |= self._origins("", node.input[1], seen)
        return found


def _name(tensor: str) -> str:
    """Returns the node of a tensor's name, as in ``^node``, ``node:0`` or ``node:output:0``."""
    return tensor.lstrip("^").split(":")[0]


def _called(node: Any) -> list[str]:
    """Returns the functions that a node's attributes name."""
    called = []
    for value in node.attr.values():
        if value.HasField("func"):
            called.append(value.func.name)
        called += [each.name for each in value.list.func]
    return called


def _shared_name(node: Any) -> bytes:
    return bytes(node.attr["shared_name"].s) or node.name.encode()
