"""What lies in Redis and what beside it; files that are whole, or missing, or damaged."""

import hashlib
import pickle
from pathlib import Path

import pytest

from pairloop.data.v1.payload_pb2 import PayloadRef
from services.errors import DataError, ResourceError
from services.queues.payload_folder import PayloadFolder
from services.queues.payloads import Payloads
from services.queues.settings import QueueSettings
from tests.fake_payloads import FakePayloads

SETTINGS = QueueSettings(inline_bytes=8, outage_s=30.0)
ID = "demo.online/e00003/p00017"


async def test_what_is_large_lies_outside_under_its_content() -> None:
    store = FakePayloads()
    payloads = Payloads(store, SETTINGS)
    assert await payloads.put(3, ID, b"12345678") == ("payload", b"12345678")
    assert store.files == {}
    field, value = await payloads.put(3, ID, b"123456789")
    digest = hashlib.sha256(b"123456789")
    path = f"00003/p00017-{digest.hexdigest()}"
    assert field == "ref"
    assert PayloadRef.FromString(value) == PayloadRef(path=path, sha256=digest.digest(), size=9)
    assert store.files == {path: b"123456789"}
    assert await payloads.put(3, ID, b"123456789") == (field, value)  # a commit that was cut off
    assert len(store.files) == 1
    assert await payloads.get(field, value) == b"123456789"
    assert await payloads.get("payload", b"12345678") == b"12345678"


async def test_everything_may_lie_in_redis_and_what_lies_outside_is_found_all_the_same() -> None:
    store = FakePayloads()
    before = await Payloads(store, SETTINGS).put(1, ID, b"123456789")
    inside = Payloads(store, SETTINGS.model_copy(update={"payloads": "redis"}))
    assert await inside.put(1, ID, b"another one") == ("payload", b"another one")
    assert await inside.get(*before) == b"123456789"
    tool = Payloads(None, SETTINGS)
    assert await tool.put(1, ID, b"another one") == ("payload", b"another one")
    with pytest.raises(DataError, match=r"p00017-\w+ lies outside of Redis"):
        await tool.get(*before)


@pytest.mark.parametrize("content", [None, b"12345678", b"123456780"])
async def test_a_file_that_is_missing_or_damaged_is_named(content: bytes | None) -> None:
    store = FakePayloads()
    payloads = Payloads(store, SETTINGS)
    found = await payloads.put(3, ID, b"123456789")
    (path,) = store.files
    if content is None:
        del store.files[path]
    else:
        store.files[path] = content
    with pytest.raises(DataError) as caught:
        await payloads.get(*found)
    what = "cannot be read (No such file" if content is None else "is damaged"
    assert str(caught.value).startswith(f"payload memory/{path} {what}")
    assert str(caught.value).endswith("; bring it back, let every node see its folder, or begin the"
                                      " stage anew with --fresh")  # fmt: skip


async def test_a_full_disk_is_waited_for_as_long_as_redis_is() -> None:
    store = FakePayloads(full=1)
    field, _ = await Payloads(store, SETTINGS).put(3, ID, b"123456789")
    assert (field, len(store.files)) == ("ref", 1)
    impatient = Payloads(FakePayloads(full=1), SETTINGS.model_copy(update={"outage_s": 0.0}))
    with pytest.raises(
        ResourceError, match=r"^no room on the payloads' disk for 0 s \(\[Errno 28\]"
    ):
        await impatient.put(3, ID, b"123456789")


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    folder = pickle.loads(pickle.dumps(PayloadFolder(tmp_path)))  # noqa: S301 - our own
    folder.keep("00001/p-a", b"whole")
    folder.keep("00001/p-a", b"whole")
    assert folder.read("00001/p-a") == b"whole"
    assert [path.name for path in (tmp_path / "00001").iterdir()] == ["p-a"]
    assert folder.place("00001/p-a") == str(tmp_path / "00001" / "p-a")
    (tmp_path / "00001" / "p-a").write_bytes(b"cut")
    folder.keep("00001/p-a", b"whole")
    assert folder.read("00001/p-a") == b"whole"


@pytest.mark.parametrize("path", ["../secret", "00001/../../secret"])
def test_a_path_that_leads_elsewhere_is_not_read(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(b"!")
    folder = PayloadFolder(tmp_path / "payloads")
    folder.keep("00001/p-a", b"whole")
    with pytest.raises(FileNotFoundError):
        folder.read(path)


def test_an_episode_that_is_over_goes_once_redis_cannot_fall_back_to_it(tmp_path: Path) -> None:
    now = [0.0]
    folder = PayloadFolder(tmp_path, lambda: now[0])

    def left() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    for episode in (1, 2, 3, 4):
        folder.keep(f"{episode:05d}/p-a", b"whole")
    folder.forget(1)
    now[0] = 59.0
    folder.forget(2)
    assert left() == ["00001", "00002", "00003", "00004"]
    folder.forget(1)  # Redis fell back behind its end, and it was over once more
    now[0] = 60.0
    folder.forget(2)
    assert left() == ["00001", "00002", "00003", "00004"]
    now[0] = 119.0
    folder.forget(3)
    assert left() == ["00002", "00003", "00004"]
    now[0] = 500.0
    folder.forget(3)  # 4 is not over
    assert left() == ["00003", "00004"]
    # What an earlier process left is over since it was seen first.
    another = PayloadFolder(tmp_path, lambda: now[0])
    another.forget(4)
    now[0] = 560.0
    another.forget(5)
    assert left() == []
