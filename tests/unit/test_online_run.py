"""What makes an online stage fail although every part of it worked."""

import pytest

from orchestrator.online.run import require_training
from services.errors import DataError
from services.queues.ledger import LedgerEvent


def event(kind: str, detail: str = "") -> LedgerEvent:
    return LedgerEvent("1-0", kind, "run/e00001/p00000", 1, detail)


def test_a_run_without_a_trained_pair_is_no_success() -> None:
    ties = [event("dropped", "TIE"), event("dropped", "MARGIN"), event("dropped", "TIE")]
    with pytest.raises(DataError, match=r"all 3 groups were dropped \(2 tie, 1 margin\)") as caught:
        require_training("online_dpo", [event("dispatched"), *ties])
    assert len(str(caught.value)) <= 300
    require_training("online_dpo", [*ties, event("trained", "1")])
