"""Executables: the paths that a program needs in order to start, its installation and its interpreter.

A server that runs in the jail sees the system's programs and libraries and nothing else of this machine. Its own
installation is no secret, and you should not have to find out where it lies.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

_PARTS = ("bin", "lib", "lib64", "libexec", "ssl", "pyvenv.cfg")
"""Of a folder in which something is installed; whatever else is beside them is not shown."""
_DEEP = 4
_SYSTEM = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin", "/sbin")


def found(command: str, environment: Mapping[str, str]) -> str | None:
    """The program that a command names, as a path; ``None`` where there is none."""
    if os.sep in command:
        return command if os.access(command, os.X_OK) else None
    return shutil.which(command, path=environment.get("PATH"))


def needed(program: str, environment: Mapping[str, str], deep: int = _DEEP) -> list[str]:
    """Paths that a program and its interpreters are installed at, beside those of the system."""
    if deep == 0:
        return []
    paths = list[str]()
    for path in dict.fromkeys((Path(os.path.abspath(program)), Path(program).resolve())):  # noqa: PTH100  (links kept)
        prefix = path.parent.parent
        if str(path.parent) in _SYSTEM:
            continue
        if path.parent.name != "bin" or not _is_installation(prefix):
            paths.append(str(path))
            continue
        paths += [str(prefix / part) for part in _PARTS if (prefix / part).exists()]
        home = _home_of(prefix / "pyvenv.cfg")
        if home is not None:
            paths += needed(home, environment, deep - 1)
    interpreter = _interpreter(Path(program), environment)
    if interpreter is not None:
        paths += needed(interpreter, environment, deep - 1)
    return list(dict.fromkeys(paths))


def _is_installation(prefix: Path) -> bool:
    return (
        (prefix / "pyvenv.cfg").is_file()
        or (prefix / "lib/node_modules").is_dir()
        or any(prefix.glob("lib/python3*"))
    )


def _home_of(config: Path) -> str | None:
    """The Python that a virtual environment was made with."""
    try:
        lines = config.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    told = dict(line.replace(" ", "").split("=", 1) for line in lines if "=" in line)
    return str(Path(told["home"]) / "python3") if "home" in told else None


def _interpreter(program: Path, environment: Mapping[str, str]) -> str | None:
    """What the first line of a script names."""
    try:
        with program.open("rb") as opened:
            first = opened.readline(256)
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode(errors="replace").split()
    if words and Path(words[0]).name == "env":
        named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return shutil.which(named[0], path=environment.get("PATH")) if named else None
    return words[0] if words and Path(words[0]).exists() else None
