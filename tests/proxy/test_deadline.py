"""Three timeouts folded into one instant."""

import pytest

from queueproxy.proxy.deadline import Timeouts, due


@pytest.mark.qp("QP-170", "QP-171", "QP-172", "QP-173", "QP-177", "QP-024")
@pytest.mark.parametrize(
    ("timeouts", "wrote_at", "expected"),
    [
        pytest.param(Timeouts(10), 0.0, (110.0, "Request timeout"), id="duration alone"),
        pytest.param(Timeouts(10), 105.0, (110.0, "Request timeout"), id="duration does not care for writes"),
        pytest.param(Timeouts(10, 3), 0.0, (103.0, "Response start timeout"), id="nothing written"),
        pytest.param(Timeouts(10, 3), 102.0, (110.0, "Request timeout"), id="started in time"),
        pytest.param(Timeouts(10, 30), 0.0, (110.0, "Request timeout"), id="start later than duration"),
        pytest.param(Timeouts(10, 0, 4), 0.0, (104.0, "Idle timeout"), id="idle from the beginning"),
        pytest.param(Timeouts(10, 0, 4), 103.0, (107.0, "Idle timeout"), id="idle from the last write"),
        pytest.param(Timeouts(10, 0, 4), 108.0, (110.0, "Request timeout"), id="duration before idle"),
        pytest.param(Timeouts(10, 3, 2), 0.0, (102.0, "Idle timeout"), id="the earliest of three"),
        pytest.param(Timeouts(10, 10, 10), 0.0, (110.0, "Request timeout"), id="a tie is the duration's"),
    ],
)
def test_what_is_due_first(timeouts: Timeouts, wrote_at: float, expected: tuple[float, str]) -> None:
    assert due(timeouts, 100.0, wrote_at) == expected


@pytest.mark.parametrize(
    ("timeouts", "shortest"),
    [(Timeouts(10), 10), (Timeouts(10, 3), 3), (Timeouts(10, 3, 2), 2), (Timeouts(1, 3, 2), 1)],
)
def test_nothing_fires_before_the_shortest(timeouts: Timeouts, shortest: float) -> None:
    assert timeouts.shortest == shortest
    assert due(timeouts, 100.0, 0.0)[0] >= 100.0 + shortest
