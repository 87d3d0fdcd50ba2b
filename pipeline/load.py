"""Reads a configuration file: every fault named with file, line, key and the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from models.spec.errors import ConfigError, nearest
from models.spec.problem import SpecProblems
from models.spec.strict import WRITTEN
from pipeline.config import Config

_MAX_REPORTED = 20


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Parses a YAML file into a `Config`.

    Args:
        path: The file.
        overrides: ``key.path=value`` assignments (from ``--set``), values in YAML. A relative
            `logs.root` given this way is relative to the current folder, one in the file to the
            file's folder.

    Returns:
        The configuration with an absolute `logs.root`.

    Raises:
        ConfigError: The file is missing or not YAML, or a key or value is not valid. Each fault
            is a line ``file:line: key: message``.
    """
    path = Path(path)
    document = _read_yaml(path)
    overridden = _apply_overrides(document, overrides)
    _absolute_root(document, path, overridden)
    try:
        return Config.model_validate(_plain(document), context=WRITTEN)
    except ValidationError as error:
        faults = list(_faults(error, document, path, overridden))
        shown = faults[:_MAX_REPORTED]
        if len(faults) > _MAX_REPORTED:
            shown.append(f"... and {len(faults) - _MAX_REPORTED} more")
        raise ConfigError("\n".join(shown)) from error


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}",
            received=error.strerror or str(error),
            remedy="give the path of a YAML file with --config",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text", received=str(error), remedy="save it as UTF-8"
        ) from error
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_first_line(error)}") from error
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path}: not a configuration",
            constraint="a mapping with the keys name, logs, columns, tasks, ...",
            received="an empty file"
            if document is None
            else "a list"
            if isinstance(document, list)
            else "a single value",
            remedy="start from examples/simulated/config.yaml",
        )
    return document


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _apply_overrides(document: Any, overrides: Sequence[str]) -> set[tuple[str, ...]]:
    applied = set()
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text}", constraint="key.path=value, as in training.epochs=3")
        parts = key.split(".")
        node = document
        for part in parts[:-1]:
            child = node.get(part) if isinstance(node, dict) else None
            if child is None and isinstance(node, dict):
                child = node[part] = {}
            if not isinstance(child, dict):
                raise ConfigError(
                    f"--set {key}", constraint=f"a mapping at {part!r}", received=repr(child)
                )
            node = child
        try:
            node[parts[-1]] = YAML(typ="safe").load(value)
        except YAMLError as error:
            raise ConfigError(
                f"--set {key}: the value is not valid YAML",
                received=repr(value),
                remedy="close its brackets and quotes",
            ) from error
        applied.add(tuple(parts))
    return applied


def _absolute_root(document: Any, path: Path, overridden: set[tuple[str, ...]]) -> None:
    logs = document.get("logs")
    if not isinstance(logs, dict) or not isinstance(logs.get("root"), str):
        return
    base = Path.cwd() if ("logs", "root") in overridden else path.resolve().parent
    logs["root"] = str((base / Path(logs["root"]).expanduser()).resolve())


def _plain(node: Any) -> Any:
    """Turns ruamel's annotated containers and scalars into plain Python ones."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return node


def _faults(
    error: ValidationError, document: Any, path: Path, overridden: set[tuple[str, ...]]
) -> Iterable[str]:
    messages: dict[tuple[int | str, ...], list[str]] = {}
    for each in error.errors():
        cause = each.get("ctx", {}).get("error")
        if isinstance(cause, SpecProblems):
            for problem in cause.problems:
                yield _located(path, document, problem.path, problem.message, overridden)
            continue
        # One value that may be of several types has a fault for each.
        messages.setdefault(_yaml_location(each, document), []).append(_message(each))
    for location, told in messages.items():
        yield _located(path, document, location, ", or: ".join(told), overridden)


def _yaml_location(fault: Any, document: Any) -> tuple[int | str, ...]:
    """Drops what pydantic adds to a location: union tags and names of types and validators."""
    location: Sequence[int | str] = fault["loc"]
    names_key = fault["type"] in ("missing", "extra_forbidden")
    kept: list[int | str] = []
    node = document
    last = len(location) - 1
    for index, part in enumerate(location):
        inside = isinstance(node, dict) and part in node
        inside |= isinstance(node, list) and isinstance(part, int) and part < len(node)
        if inside:
            node = node[part]
        elif index != last or not names_key:
            continue
        kept.append(part)
    return tuple(kept)


def _message(each: Any) -> str:
    kind = each["type"]
    location = each["loc"]
    if kind == "extra_forbidden":
        allowed = sorted(_fields_at(location[:-1]))
        name = str(location[-1])
        hint = nearest(name, allowed)
        if name == "True" and "on" in allowed:
            hint = ", did you mean 'on'? Write it in quotes: tools of YAML 1.1 read it as true"
        return f"unknown key {name!r}; allowed: {', '.join(allowed)}{hint}"
    if kind == "missing":
        return f"the key {location[-1]!r} is required"
    received = repr(each.get("input"))
    if len(received) > 80:
        received = received[:77] + "..."
    message = each["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message = message.replace("String should match", "text to match")
    message = re.sub(r"^\w+ should have (.*) after validation.*", r"\1", message)
    if kind == "value_error":
        return str(message)
    text = f"expected {message}; received {received}"
    if kind == "union_tag_invalid":
        value = str(each["ctx"]["tag"])
        allowed_tags = re.findall(r"'([^']+)'", each["ctx"]["expected_tags"])
        return (
            f"unknown {each['ctx']['discriminator'].strip(chr(39))} {value!r}; "
            f"allowed: {', '.join(allowed_tags)}{nearest(value, allowed_tags)}"
        )
    if kind == "literal_error":
        text += nearest(str(each.get("input")), re.findall(r"'([^']+)'", each["msg"]))
    return text


def _fields_at(location: Sequence[int | str]) -> set[str]:
    """Names of the keys allowed at a place, found by walking the model's annotations."""
    candidates: set[type[BaseModel]] = {Config}
    for part in location:
        following: set[type[BaseModel]] = set()
        tagged: set[type[BaseModel]] = set()
        for model in candidates:
            if isinstance(part, str) and part in model.model_fields:
                following |= _models_in(model.model_fields[part].annotation)
            else:
                tag = model.model_fields.get("kind") or model.model_fields.get("architecture")
                if tag is not None and part in get_args(tag.annotation):
                    tagged.add(model)
        if tagged:
            candidates = tagged
        elif following:
            candidates = following
    return {name for model in candidates for name in model.model_fields}


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for argument in get_args(annotation) for model in _models_in(argument)}


def _located(
    path: Path,
    document: Any,
    location: Sequence[int | str],
    message: str,
    overridden: set[tuple[str, ...]],
) -> str:
    line = _line_of(document, location)
    keys = ".".join(str(part) for part in location)
    texts = tuple(map(str, location))
    # An override may also have made the unknown key that the fault is about.
    if any(texts[: len(o)] == o[: len(texts)] for o in overridden):
        return f"--set {keys}: {message}"
    return f"{path}:{line}: {keys}: {message}"


def _line_of(document: Any, location: Sequence[int | str]) -> int:
    """Line of the deepest existing key of a location, counted from 1."""
    line = 1
    node = document
    for part in location:
        if isinstance(node, dict) and part in node:
            # A key that --set added has no line.
            places: Any = getattr(node, "lc", None)
            if places is not None and part in (places.data or {}):
                line = places.key(part)[0] + 1
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            if hasattr(node, "lc"):
                line = node.lc.item(part)[0] + 1
            node = node[part]
    return line
