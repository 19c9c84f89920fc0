"""Confined side of a sandbox: the fork server, the supervisor of a call, and the confined child.

Only the standard library is imported here, and only relatively: the fork server loads this folder as a package of its
own, so that nothing of agentkit, and nothing that it imports, is in a child that did not ask for it.
"""
