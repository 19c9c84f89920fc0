"""Whose turn it is, as a pure function of the lines and of who was served."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ops_core.stores.fair_share import FairShare, Line

lines_of_anybody = st.sets(
    st.builds(Line, st.sampled_from("abc"), st.sampled_from(["x", "y"]), st.integers(-1, 1)), max_size=12
)


@given(slots=st.integers(1, 30), lines=lines_of_anybody)
def test_all_slots_are_shared_out_and_only_to_the_most_urgent_of_each_tenant(slots: int, lines: set[Line]):
    shared = FairShare().share(slots, lines)
    assert sum(shared.values()) == (slots if lines else 0)
    assert all(count > 0 for count in shared.values())
    for line in shared:
        assert line.priority == max(other.priority for other in lines if other.tenant == line.tenant)
    by_tenant = Counter[str]()
    for line, count in shared.items():
        by_tenant[line.tenant] += count
    if slots >= len({line.tenant for line in lines}):
        assert set(by_tenant) == {line.tenant for line in lines}
    assert max(by_tenant.values(), default=0) - min(by_tenant.values(), default=0) <= 1


def serve(turns: FairShare, line: Line) -> None:
    turns.served(line)
    turns.last_tenant = line.tenant


def test_tenants_are_served_in_turn_from_the_last_one_on():
    turns, lines = FairShare(), [Line(tenant, "x", 0) for tenant in "abcd"]
    order = []
    for _ in range(12):
        (line,) = turns.share(1, lines)
        serve(turns, line)
        order.append(line.tenant)
    assert order == list("abcd") * 3


def test_a_tenant_that_comes_back_has_its_place():
    turns = FairShare()
    turns.last_tenant = "b"
    assert list(turns.in_turn({"d", "a", "b", "c"})) == ["c", "d", "a", "b"]


def test_agents_of_a_tenant_take_turns_too():
    turns, lines = FairShare(), [Line("a", "x", 0), Line("a", "y", 0), Line("b", "x", 0)]
    order = []
    for _ in range(8):
        (line,) = turns.share(1, lines)
        serve(turns, line)
        order.append(line.tenant + line.agent)
    assert order == ["ax", "bx", "ay", "bx"] * 2
