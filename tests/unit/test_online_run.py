"""What makes an online stage fail although every part of it worked."""

from pathlib import Path

import pytest

from orchestrator.online.archive import require_training
from services.errors import DataError
from services.queues.ledger import LedgerEvent
from services.queues.ledger_file import packed


def event(kind: str, detail: str = "") -> LedgerEvent:
    return LedgerEvent("1-0", kind, "run/e00001/p00000", 1, detail)


def test_a_run_without_a_trained_pair_is_no_success(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl.gz"
    ties = [event("dropped", "TIE"), event("dropped", "MARGIN"), event("dropped", "TIE")]
    ledger.write_bytes(packed([event("dispatched")]) + packed(ties))
    with pytest.raises(DataError, match=r"all 3 groups were dropped \(2 tie, 1 margin\)") as caught:
        require_training("online_dpo", ledger)
    assert len(str(caught.value)) <= 300
    ledger.write_bytes(packed([*ties, event("trained", "1")]))
    require_training("online_dpo", ledger)
