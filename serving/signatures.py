"""A model's signatures as the client sees them: names, types and shapes of inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from models.spec.errors import nearest
from models.spec.keys import DEFINITIONS
from serving.api import tensors
from serving.api.messages import DATA_TYPE_NAMES, SignatureDefMap
from serving.errors import InvalidRequestError, PreconditionError, ServerFaultError


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a signature.

    Attributes:
        name: Name of the input or output.
        data_type: TensorFlow data type number.
        shape: Sizes, None where any size fits; None if the rank is unknown.
    """

    name: str
    data_type: int
    shape: tuple[int | None, ...] | None

    @property
    def dtype_name(self) -> str:
        """The data type in words, e.g. ``float``."""
        return DATA_TYPE_NAMES.get(self.data_type, "?").removeprefix("DT_").lower()

    @classmethod
    def from_proto(cls, name: str, info: Any) -> TensorSpec:
        """Reads a TensorInfo."""
        shape = None
        if not info.tensor_shape.unknown_rank:
            shape = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
        return cls(name, info.dtype, shape)


@dataclass(frozen=True)
class SignatureSpec:
    """One signature of a model.

    Attributes:
        name: Name of the signature.
        inputs: Inputs by name.
        outputs: Outputs by name.
        optional: Inputs that have a default and may be left out.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    optional: frozenset[str]

    @classmethod
    def from_proto(cls, name: str, signature: Any) -> SignatureSpec:
        """Reads a SignatureDef."""
        return cls(
            name=name,
            inputs={
                key: TensorSpec.from_proto(key, signature.inputs[key])
                for key in sorted(signature.inputs)
            },
            outputs={
                key: TensorSpec.from_proto(key, signature.outputs[key])
                for key in sorted(signature.outputs)
            },
            optional=frozenset(signature.defaults),
        )

    def check_input_names(self, names: Iterable[str]) -> None:
        """Checks that all inputs are supplied and no others.

        Raises:
            InvalidRequestError: An unknown or a missing name.
        """
        supplied = set(names)
        for name in sorted(supplied - set(self.inputs)):
            raise InvalidRequestError(
                f"unknown input {name!r} of signature {self.name!r}{nearest(name, self.inputs)}",
                constraint=f"only {_listed(self.inputs)}",
                received=repr(name),
                remedy="leave it out or correct the name",
            )
        missing = set(self.inputs) - supplied - self.optional
        if missing:
            raise InvalidRequestError(
                f"signature {self.name!r} lacks {_listed(missing)}",
                constraint=f"all of {_listed(set(self.inputs) - self.optional)}",
                received=_listed(supplied) or "no inputs",
                remedy="supply the missing features; a value may be missing ('' or NaN), "
                "a feature may not",
            )

    def check_output_names(self, names: Collection[str]) -> None:
        """Checks requested outputs.

        Raises:
            InvalidRequestError: An unknown or repeated name.
        """
        seen: set[str] = set()
        for name in names:
            if name not in self.outputs:
                raise InvalidRequestError(
                    f"unknown output {name!r} of signature {self.name!r}"
                    f"{nearest(name, self.outputs)}",
                    constraint=f"some of {_listed(self.outputs)}",
                    received=repr(name),
                    remedy="leave it out or correct the name",
                )
            if name in seen:
                raise InvalidRequestError(
                    f"output {name!r} is asked for twice",
                    constraint="each output once",
                    received=", ".join(names),
                    remedy="leave one out",
                )
            seen.add(name)


@dataclass(frozen=True)
class ModelMetadata:
    """What a served model takes and returns.

    Attributes:
        model: Name of the model.
        version: The version that answered.
        signatures: Signatures by name.
        definitions: Hash of what the model takes each of its as-of features to mean, by name.
    """

    model: str
    version: int
    signatures: Mapping[str, SignatureSpec]
    definitions: Mapping[str, str]

    @classmethod
    def from_proto(cls, response: Any) -> ModelMetadata:
        """Reads a GetModelMetadataResponse.

        Raises:
            ServerFaultError: It holds no signatures.
        """
        found = SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(found):
            raise ServerFaultError("the answer to GetModelMetadata holds no signatures")
        return cls(
            model=response.model_spec.name,
            version=response.model_spec.version.value,
            signatures={
                name: SignatureSpec.from_proto(name, found.signature_def[name])
                for name in sorted(found.signature_def)
                if not name.startswith("__")  # initialisation ops, not signatures
            },
            definitions=_definitions(found.signature_def),
        )

    def signature(self, name: str) -> SignatureSpec:
        """Returns a signature by name.

        Raises:
            PreconditionError: The model has no such signature.
        """
        try:
            return self.signatures[name]
        except KeyError:
            raise PreconditionError(
                f"model {self.model!r} version {self.version} has no signature {name!r}"
                f"{nearest(name, self.signatures)}",
                constraint=f"one of {_listed(self.signatures)}",
                received=repr(name),
                remedy="ask for a signature that this version has, or push one that has it",
            ) from None


def _definitions(signatures: Mapping[str, Any]) -> Mapping[str, str]:
    if DEFINITIONS not in signatures:
        return {}
    (text,) = tensors.decode(signatures[DEFINITIONS].defaults[DEFINITIONS])
    return dict(json.loads(text))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
