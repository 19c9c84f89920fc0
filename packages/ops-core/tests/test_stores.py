import pytest

from ops_core.testing import MeasuringContract, StoreContract


class TestSqlStore(StoreContract, MeasuringContract):
    @pytest.fixture(params=["memory", "sqlite", "postgresql"])
    def database(self, request: pytest.FixtureRequest) -> str:
        return request.param
