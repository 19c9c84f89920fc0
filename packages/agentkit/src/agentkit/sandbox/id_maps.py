"""Mounts of granted paths in which what root owns belongs to the id of tools.

Where the worker is root, tools run under an id without rights. What is granted to them is as open to them as to the
worker only where its mount maps owners. Only root outside of all namespaces may arrange that: so the worker makes such
mounts, from the descriptors that it holds, and hands them over.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress

from agentkit.sandbox.confined.kernel import clone_mount, map_mount_ids
from agentkit.sandbox.held_paths import HeldPath
from agentkit.sandbox.terms import Grants


@contextmanager
def mapped_mounts(grants: Grants, namespace: int | None) -> Generator[list[int | None]]:
    """A descriptor of a mount for each granted path, read ones first; ``None`` where owners cannot be mapped.

    Args:
        grants: of a call.
        namespace: descriptor of a namespace of users that maps them; ``None`` where the worker is not root.
    """
    held = (*grants.held_read, *grants.held_write)
    mounts = [None if namespace is None else _mapped(each, namespace) for each in held]
    try:
        yield mounts
    finally:
        for mount in mounts:
            if mount is not None:
                os.close(mount)


def _mapped(held: HeldPath, namespace: int) -> int | None:
    with suppress(OSError):  # no right to mount, or a file system that has no such mounts
        mount = clone_mount(held.descriptor)
        try:
            map_mount_ids(mount, namespace)
        except OSError:
            os.close(mount)
            raise
        return mount
    return None
