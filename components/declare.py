"""Declares a TFX component from its inputs, outputs and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.components.base import base_beam_component, base_component, executor_spec
from tfx.types import channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter


def component_class(
    name: str,
    executor: type[Any],
    *,
    inputs: Mapping[str, type[Any]],
    outputs: Mapping[str, type[Any]],
    parameters: Sequence[str],
    optional_inputs: Mapping[str, type[Any]] | None = None,
    beam: bool = False,
) -> type[base_component.BaseComponent]:
    """Returns a component class; its constructor takes channels and parameters by keyword.

    Input keys may depend on the configuration (one per candidate): a `union` of channels has no
    order, and an evaluation has no link to its model, so every channel keeps a name of its own.

    Args:
        name: Class name, and the default node id.
        executor: Executor class, importable by its path.
        inputs: Artifact type by input key.
        outputs: Artifact type by output key.
        parameters: Names of the string parameters. All of them enter the cache key.
        optional_inputs: Inputs that may be left out.
        beam: Whether the executor takes Beam pipeline arguments.
    """
    spec = type(
        f"{name}Spec",
        (ComponentSpec,),
        {
            "__doc__": f"Inputs, outputs and parameters of `{name}`.",
            "PARAMETERS": {key: ExecutionParameter(type=str) for key in parameters},
            "INPUTS": {key: ChannelParameter(type=kind) for key, kind in inputs.items()}
            | {
                key: ChannelParameter(type=kind, optional=True)
                for key, kind in (optional_inputs or {}).items()
            },
            "OUTPUTS": {key: ChannelParameter(type=kind) for key, kind in outputs.items()},
        },
    )

    base: type[Any] = (
        base_beam_component.BaseBeamComponent if beam else base_component.BaseComponent
    )

    def initialise(self: Any, **arguments: Any) -> None:
        for key, kind in outputs.items():
            arguments.setdefault(key, channel.Channel(type=kind))
        given = {key: value for key, value in arguments.items() if value is not None}
        base.__init__(self, spec=spec(**given))

    executor_kind = executor_spec.BeamExecutorSpec if beam else executor_spec.ExecutorClassSpec
    return type(
        name,
        (base,),
        {
            "__doc__": executor.__doc__,
            "__init__": initialise,
            "SPEC_CLASS": spec,
            "EXECUTOR_SPEC": executor_kind(executor),
        },
    )
