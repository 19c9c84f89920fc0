import pytest

from ops_core.testing import StoreContract


class TestSqlStore(StoreContract):
    @pytest.fixture(params=["memory", "sqlite", "postgresql"])
    def database(self, request: pytest.FixtureRequest) -> str:
        return request.param
