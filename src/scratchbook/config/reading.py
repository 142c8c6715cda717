"""Read a YAML file: a path in, plain values out, with the mistakes YAML would swallow refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import yaml

from scratchbook.errors import ScratchbookError


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2's numbers and booleans (`1e-4` is a number, `no` is a word); no key twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own way to configure a loader)
        first: [rule for rule in rules if not rule[0].endswith((":bool", ":float"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ScratchbookError:
            raise
        except (AttributeError, TypeError, ValueError) as error:  # `2026-02-30` is read as a date
            raise ScratchbookError(
                f"{self.name}:{node.start_mark.line + 1}: {node.value!r} cannot be read ({error}); "
                "put quotes around it if it is text"
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise ScratchbookError(
                    f"{self.name}:{line}: {key!r} cannot be a key; put quotes around text that "
                    "begins with `{` or `[`"
                )
            if key in seen:
                raise ScratchbookError(
                    f"{self.name}:{line}: {key!r} is written twice (first in line {seen[key]}); "
                    "give one of them another name"
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"
        r"|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> Any:
    """The values in a YAML file.

    Raises:
        ScratchbookError: the file is missing, is no YAML, or has a key twice or one that is none.
    """
    try:
        loader = _Loader(path.read_bytes())
        loader.name = str(path)
        return loader.get_single_data()
    except FileNotFoundError:
        raise ScratchbookError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ScratchbookError(f"{path}: this is a folder, not a YAML file") from None
    except OSError as error:
        raise ScratchbookError(f"{path}: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = (getattr(error, "problem", None) or str(error)).partition("\n")[0]
        raise ScratchbookError(f"{path}{line}: this is not YAML: {problem}") from None


def line_of(path: Path, location: tuple[str | int, ...]) -> int | None:
    """The line in which the value at `location` (keys and list positions) begins; None for none."""
    return line_finder(path)(location)


def line_finder(path: Path) -> Callable[[tuple[str | int, ...]], int | None]:
    """`line_of` for many places of one file, which is read once."""
    try:
        root = yaml.compose(path.read_bytes(), Loader=_Loader)
    except (OSError, yaml.YAMLError):
        root = None

    def line_at(location: tuple[str | int, ...]) -> int | None:
        node, line = root, None
        for part in location:
            if isinstance(node, yaml.SequenceNode) and part in range(len(node.value)):
                node = node.value[part]
                line = node.start_mark.line + 1
            elif isinstance(node, yaml.MappingNode) and str(part) in (pairs := _pairs(node)):
                key, node = pairs[str(part)]
                line = key.start_mark.line + 1
            else:
                return None
        return line

    return line_at


def _pairs(mapping: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The keys of a mapping, with those that `<<` merges into it: their nodes and their values'."""
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in mapping.value:
        if key.tag == "tag:yaml.org,2002:merge":
            for one in [value] if isinstance(value, yaml.MappingNode) else value.value:
                merged = _pairs(one) | merged
        else:
            own[key.value] = (key, value)
    return merged | own
