"""Shared by the tests of agentkit."""

import pytest
from hypothesis import HealthCheck, settings

# A busy machine stops a test at any moment, so no example has a deadline. CI's own profile stays as it is otherwise.
settings.register_profile(
    "busy machine",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy machine")

pytest.register_assert_rewrite("agentkit.testing")  # the shipped contracts explain their failures
