"""Shared by the tests of agentkit."""

import pytest

pytest.register_assert_rewrite("agentkit.testing")  # the shipped contracts explain their failures
