"""Code that is no part of this package: registration under a name, plug-ins, and digests of it."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from asyncdmtl.errors import UsageError

Value = TypeVar("Value")

PLUGINS = "asyncdmtl.plugins"
"""The group of entry points: each names a module that registers its code when it is imported."""

PLUGINS_VARIABLE = "ASYNCDMTL_PLUGINS"
"""The environment variable with names of such modules, with commas between them."""

# Names are words of options and of TOML files.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")

_loaded = False


class Registry(Mapping[str, Value]):
    """Values by name: those of this package, and those that plug-ins register.

    Plug-ins are imported when names are first looked up, in every process: those of installed packages, by
    their entry points in the group `asyncdmtl.plugins`, and the modules in ASYNCDMTL_PLUGINS.

    Parameters
    ----------
    kind : str
        What the values are, for errors.
    known : mapping of name to value
        The values of this package.
    """

    def __init__(self, kind: str, known: Mapping[str, Value]) -> None:
        self._kind = kind
        self._known = dict(known)
        self._registered: dict[str, Value] = {}

    def register(self, name: str, value: Value) -> None:
        """Add a value. A name that was registered before is given to the new value, as notebooks need.

        Raises
        ------
        UsageError
            The name is not of small letters, digits and hyphens, or this package has one of this name.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            rule = "must be a name of 1 to 40 small letters, digits and hyphens that begins with a letter"
            raise UsageError(self._kind, rule, name)
        if name in self._known or name == "auto":
            raise UsageError(self._kind, "must be called otherwise than those of this package", name)
        self._registered[name] = value

    def digests(self, name: str) -> dict[str, str]:
        """The digest of the code of a registered value, by kind; empty for values of this package."""
        return {self._kind: digest_of(self[name])} if name in self._registered else {}

    def __getitem__(self, name: str) -> Value:
        load_plugins()
        return self._known[name] if name in self._known else self._registered[name]

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter((*self._known, *self._registered))

    def __len__(self) -> int:
        return len(tuple(iter(self)))


def load_plugins() -> None:
    """Import all plug-ins, once.

    Raises
    ------
    UsageError
        A plug-in cannot be imported.
    """
    global _loaded
    if _loaded:
        return
    _loaded = True
    modules = [module.strip() for module in os.environ.get(PLUGINS_VARIABLE, "").split(",")]
    for module in [*(point.value for point in entry_points(group=PLUGINS)), *filter(None, modules)]:
        try:
            import_module(module)
        except Exception as error:  # whatever the code of others raises
            # The next look-up tries again, and does not go on without the plug-in.
            _loaded = False
            reason = f"{type(error).__name__}: {error}"
            raise UsageError(PLUGINS_VARIABLE, f"must name modules to import ({reason})", module) from error


def digest_of(value: Any) -> str:
    """The digest of the file that defines a function or class; of its code alone, if it is in no file."""
    value = inspect.unwrap(value)
    file = getattr(sys.modules.get(value.__module__), "__file__", None)
    made = hashlib.blake2b(digest_size=16)
    if file is not None and value.__module__ != "builtins":
        made.update(Path(file).read_bytes())
    else:
        for code in _codes(value):
            made.update(_words(code).encode())
    return made.hexdigest()


def _codes(value: Any) -> Iterator[CodeType]:
    """The code of a function, or of all methods of a class."""
    if inspect.isfunction(value):
        yield value.__code__
    elif inspect.isclass(value):
        for _, method in sorted(inspect.getmembers(value, inspect.isfunction)):
            yield method.__code__


def _words(code: CodeType) -> str:
    """Instructions, names and constants of a piece of code, without the file and lines of it."""
    inner = [_words(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return f"{code.co_name} {code.co_code.hex()} {code.co_names} {code.co_varnames} {inner}"
