"""The lock of a month: one run at a time on all machines that share a lake, folder or bucket."""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from google.api_core.exceptions import PreconditionFailed, ServiceUnavailable

from taxi_assets.defs.resources.bucket_lock import BucketLock, BucketLocks, open_bucket_locks
from taxi_assets.defs.resources.folder_lock import FolderLocks
from taxi_assets.defs.resources.lock_store import LockStore, Owner
from taxi_assets.defs.resources.month_lock import MonthLocks
from taxi_assets.errors import StoreError
from taxi_assets.local.process import wait_until
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.fault_proxy import http_proxy
from taxi_assets_tests.gcs_server import gcs_server

GREEN, YELLOW = SERVICES["green"], SERVICES["yellow"]
DAYS = [date(2021, 1, 31), date(2021, 2, 1)]
NAME = "green-2021-01"
LEASE = 1.5
MARGIN = 0.5


@pytest.fixture
def folder(tmp_path: Path) -> FolderLocks:
    return FolderLocks(tmp_path / "_locks", poll_seconds=0.05)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketLocks]:
    monkeypatch.setattr("taxi_assets.defs.resources.bucket_lock.MARGIN_SECONDS", MARGIN)
    (tmp_path / "lake").mkdir()
    with gcs_server(tmp_path) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield BucketLocks(open_bucket_locks("lake").bucket, LEASE, poll_seconds=0.05)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest) -> LockStore:
    return request.getfixturevalue(request.param)


def left(store: LockStore) -> list[str]:
    """Locks that exist."""
    if isinstance(store, FolderLocks):
        return [path.name for path in store.folder.glob("*.lock")]
    return [blob.name for blob in store.bucket.list_blobs(prefix="_locks/")]


def silent(_: str) -> None:
    """Log nothing."""


def locks(run: str, store: LockStore) -> MonthLocks:
    return MonthLocks(run, lambda: store)


def test_a_second_run_waits_for_the_end_of_the_first_and_sees_who_it_is(store: LockStore) -> None:
    first, second = locks("first", store), locks("second", store)
    first.acquire(GREEN, DAYS, silent)
    said: list[str] = []
    waiting = threading.Thread(target=second.acquire, args=(GREEN, DAYS[1:], said.append))
    waiting.start()
    try:
        assert wait_until(lambda: said != [], 10)
        waiting.join(2 * LEASE)
        assert waiting.is_alive()
        first.check()
    finally:
        first.close()
    waiting.join(10)
    assert not waiting.is_alive()
    (message,) = said
    assert message.startswith("another run is working on green 2021-02 (run first on ")
    assert ", since 20" in message
    second.check()
    second.close()
    assert left(store) == []


def test_processes_of_one_run_share_its_lock_until_the_last(store: LockStore) -> None:
    owner, other = Owner("first"), Owner("other")
    one, two = store.try_acquire(NAME, owner), store.try_acquire(NAME, owner)
    assert not isinstance(one, Owner)
    assert not isinstance(two, Owner)
    two_token = getattr(two, "token", None)
    if two_token:  # both are of this process, which has one
        two.token = f"{two_token}+"
        assert isinstance(store, BucketLocks)
        two.write(two.generation, two.holders)
    one.close()
    assert store.try_acquire(NAME, other) == owner
    assert two.is_held()
    two.close()
    assert left(store) == []


def test_other_services_and_months_are_not_waited_for(store: LockStore) -> None:
    held = [locks("a", store), locks("b", store), locks("c", store)]
    held[0].acquire(GREEN, DAYS[:1], pytest.fail)
    held[1].acquire(GREEN, DAYS[1:], pytest.fail)
    held[2].acquire(YELLOW, DAYS, pytest.fail)
    for one in held:
        one.close()


def test_runs_that_want_each_others_months_do_not_wait_for_each_other(store: LockStore) -> None:
    turns: list[str] = []

    def work(run: str, days: list[date]) -> None:
        held = locks(run, store)
        held.acquire(GREEN, days, silent)
        turns.append(run)
        time.sleep(0.05)
        held.close()

    runs = [
        threading.Thread(target=work, args=(str(number), days))
        for number, days in enumerate([DAYS, DAYS[::-1]] * 3)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
    assert sorted(turns) == ["0", "1", "2", "3", "4", "5"]


def test_a_run_waits_no_longer_than_it_may(
    store: LockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_LOCK_TIMEOUT", "1")
    first = locks("first", store)
    first.acquire(GREEN, DAYS, silent)
    with pytest.raises(StoreError, match=r"2021-01 is still locked by run first .* after 1 s"):
        locks("second", store).acquire(GREEN, DAYS, silent)
    first.close()


HOLD = """
import sys, time
from pathlib import Path
from taxi_assets.defs.resources.bucket_lock import BucketLocks, open_bucket_locks
from taxi_assets.defs.resources.folder_lock import FolderLocks
from taxi_assets.defs.resources.lock_store import Owner
where, lease = sys.argv[1], float(sys.argv[2])
if "/" in where:
    store = FolderLocks(Path(where))
else:
    store = BucketLocks(open_bucket_locks(where).bucket, lease)
store.try_acquire("green-2021-01", Owner("killed"))
print("held", flush=True)
time.sleep(100)
"""


def killed_holder(where: str) -> float:
    """Hold the lock in a process that is killed without a word; when it was."""
    command = [sys.executable, "-c", HOLD, where, str(LEASE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
    return time.monotonic()


def test_in_a_folder_a_killed_run_frees_its_month_at_once(folder: FolderLocks) -> None:
    killed_holder(str(folder.folder))
    held = folder.try_acquire(NAME, Owner("next"))
    assert not isinstance(held, Owner)
    held.close()


def test_in_a_bucket_a_killed_run_frees_its_month_when_its_lease_ran_out(
    bucket: BucketLocks,
) -> None:
    died = killed_holder("lake")
    found = bucket.try_acquire(NAME, Owner("next"))
    assert isinstance(found, Owner)
    assert found.run_id == "killed"
    held = locks("next", bucket)
    held.acquire(GREEN, DAYS[:1], silent)
    # The Date header has whole seconds.
    assert LEASE + MARGIN - LEASE / 6 - 1 < time.monotonic() - died < 30
    held.check()
    held.close()
    assert left(bucket) == []


def test_a_run_that_could_not_renew_its_lease_stops_before_anybody_can_take_over(
    bucket: BucketLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = locks("first", bucket)
    first.acquire(GREEN, DAYS[:1], silent)

    def away(*_: object, **__: object) -> NoReturn:
        raise ServiceUnavailable("503")

    upload = type(bucket.bucket.blob("x")).upload_from_string
    monkeypatch.setattr(type(bucket.bucket.blob("x")), "upload_from_string", away)

    def is_lost() -> bool:
        try:
            first.check()
        except StoreError:
            return True
        return False

    assert wait_until(is_lost, 10)
    monkeypatch.setattr(type(bucket.bucket.blob("x")), "upload_from_string", upload)
    with pytest.raises(StoreError, match=r"run first lost the lock of green-2021-01: .* run again"):
        first.check()
    assert isinstance(bucket.try_acquire(NAME, Owner("second")), Owner)
    second = locks("second", bucket)
    second.acquire(GREEN, DAYS[:1], silent)
    first.close()
    second.check()
    assert left(bucket) == [f"_locks/{NAME}.json"]
    second.close()


def test_of_two_that_take_over_one_wins(bucket: BucketLocks) -> None:
    killed_holder("lake")
    assert wait_until(lambda: stale(bucket), 20, 0.1)
    found: list[object] = []
    takers = [
        threading.Thread(target=lambda n=n: found.append(bucket.try_acquire(NAME, Owner(f"{n}"))))
        for n in range(6)
    ]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(30)
    held = [one for one in found if not isinstance(one, Owner)]
    assert (len(found), len(held)) == (6, 1)
    held[0].close()


def test_a_lock_whose_answer_was_lost_is_the_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lake").mkdir()
    with gcs_server(tmp_path) as address, http_proxy(address) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        proxy.add("POST /upload/", "lose_answer", times=2)
        store = open_bucket_locks("lake")
        held = locks("first", store)
        held.acquire(GREEN, DAYS[:1], silent)
        assert proxy.left == []
        assert isinstance(store.try_acquire(NAME, Owner("second")), Owner)
        held.close()
        assert left(store) == []


def test_a_bucket_that_does_not_answer_holds_no_cancelled_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lake").mkdir()
    with gcs_server(tmp_path) as address, http_proxy(address) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        store = BucketLocks(open_bucket_locks("lake").bucket, 12)
        held = locks("first", store)
        held.acquire(GREEN, DAYS, silent)
        proxy.add(".", "hang", times=99)
        assert wait_until(lambda: proxy.fired != [], 10, 0.1)  # a renewal is under way
        began = time.monotonic()
        held.close()
        assert time.monotonic() - began < 8


def stale(bucket: BucketLocks) -> bool:
    blob = bucket.bucket.get_blob(f"_locks/{NAME}.json")
    with pytest.raises(PreconditionFailed) as refused:
        bucket.bucket.blob(blob.name).upload_from_string(b"", if_generation_match=0)
    return bucket._has_expired(blob, refused.value)


def test_a_lake_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("no folder")
    with pytest.raises(StoreError, match=r"cannot lock .*lake/_locks/green-2021-01.lock"):
        locks("a", FolderLocks(tmp_path / "lake" / "_locks")).acquire(GREEN, DAYS, silent)


def test_a_deleted_lock_stops_its_run_and_lets_the_next_one_in(folder: FolderLocks) -> None:
    first, second = locks("first", folder), locks("second", folder)
    first.acquire(GREEN, DAYS[:1], silent)
    shutil.rmtree(folder.folder)
    with pytest.raises(StoreError, match=r"lost the lock of green-2021-01: .* was deleted"):
        first.check()
    second.acquire(GREEN, DAYS[:1], pytest.fail)
    with pytest.raises(StoreError, match="lost the lock"):
        first.check()
    first.close()
    second.check()
    assert isinstance(folder.try_acquire(NAME, Owner("third")), Owner)
    second.close()
    assert left(folder) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": "x"}', "\0"])
def test_a_locked_file_of_any_content_is_waited_for(text: str, folder: FolderLocks) -> None:
    held = folder.try_acquire(NAME, Owner("first"))
    (folder.folder / f"{NAME}.lock").write_text(text)
    assert isinstance(folder.try_acquire(NAME, Owner("second")), Owner)
    assert not isinstance(held, Owner)
    held.close()
    free = folder.try_acquire(NAME, Owner("second"))
    assert not isinstance(free, Owner)
    free.close()


def test_a_lock_that_cannot_be_written_is_not_kept(
    folder: FolderLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the attempt fails, and leaves nothing that the next one waits for."""

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("taxi_assets.defs.resources.folder_lock.os.pwrite", full)
        with pytest.raises(StoreError, match="No space left"):
            folder.try_acquire(NAME, Owner("first"))
    held = folder.try_acquire(NAME, Owner("second"))
    assert not isinstance(held, Owner)
    held.close()


def test_a_process_that_is_halted_with_the_gate_is_not_waited_for_without_end(
    folder: FolderLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_assets.defs.resources.folder_lock.GATE_SECONDS", 0.2)
    folder.folder.mkdir()
    with (folder.folder / ".gate").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"cannot lock .*temporarily unavailable"):
            folder.try_acquire(NAME, Owner("first"))


def test_a_lease_ends_while_the_machine_sleeps(
    bucket: BucketLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux's monotonic clock stands still then."""
    still = time.monotonic()
    awake = vars(time) | {"monotonic": lambda: still}
    monkeypatch.setattr("taxi_assets.defs.resources.bucket_lock.time", SimpleNamespace(**awake))
    held = bucket.try_acquire(NAME, Owner("first"))
    assert isinstance(held, BucketLock)
    held._ended.set()  # nothing renews it, as in a process that does not run
    assert held.is_held()
    assert wait_until(lambda: not held.is_held(), 2 * LEASE)
