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
from dataclasses import replace
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
LEASE = 4.0
"""Seconds; a thread of a busy machine may be late by three of them."""
MARGIN = 0.5


@pytest.fixture
def folder(tmp_path: Path) -> FolderLocks:
    return FolderLocks(tmp_path / "_locks", poll_seconds=0.05)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketLocks]:
    """Return a bucket whose leases do not expire during a test."""
    monkeypatch.setattr("taxi_assets.defs.resources.bucket_lock.MARGIN_SECONDS", MARGIN)
    (tmp_path / "lake").mkdir()
    with gcs_server(tmp_path) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield BucketLocks(open_bucket_locks("lake").bucket, 120, poll_seconds=0.05)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest) -> LockStore:
    return request.getfixturevalue(request.param)


def list_locks(store: LockStore) -> list[str]:
    """Return the existing locks."""
    if isinstance(store, FolderLocks):
        return [path.name for path in store.folder.glob("*.lock")]
    return [blob.name for blob in store.bucket.list_blobs(prefix="_locks/")]


def log_nothing(_: str) -> None:
    """Log nothing."""


def make_locks(run: str, store: LockStore) -> MonthLocks:
    return MonthLocks(run, lambda: store)


def test_second_run_waits_for_the_first_and_names_it(store: LockStore) -> None:
    first, second = make_locks("first", store), make_locks("second", store)
    first.acquire(GREEN, DAYS, log_nothing)
    messages: list[str] = []
    waiting_thread = threading.Thread(
        target=second.acquire, args=(GREEN, DAYS[1:], messages.append)
    )
    waiting_thread.start()
    try:
        assert wait_until(lambda: messages != [], 60)
        waiting_thread.join(0.5)
        assert waiting_thread.is_alive()
        first.check()
    finally:
        first.close()
    waiting_thread.join(60)
    assert not waiting_thread.is_alive()
    (message,) = messages
    assert message.startswith("another run is working on green 2021-02 (run first on ")
    assert ", since 20" in message
    second.check()
    second.close()
    assert list_locks(store) == []


def test_lease_is_renewed_while_its_run_works(bucket: BucketLocks) -> None:
    month_locks = make_locks("first", replace(bucket, lease_seconds=LEASE))
    month_locks.acquire(GREEN, DAYS[:1], log_nothing)
    assert not wait_until(lambda: is_stale(bucket), 1.5 * (LEASE + MARGIN), 0.2)
    month_locks.check()
    month_locks.close()
    assert list_locks(bucket) == []


def test_processes_of_one_run_share_its_lock(store: LockStore) -> None:
    owner, other_owner = Owner("first"), Owner("other")
    first_lock, second_lock = store.try_acquire(NAME, owner), store.try_acquire(NAME, owner)
    assert not isinstance(first_lock, Owner)
    assert not isinstance(second_lock, Owner)
    two_token = getattr(second_lock, "token", None)
    if two_token:  # both belong to this process, which has one token
        second_lock.token = f"{two_token}+"
        assert isinstance(store, BucketLocks)
        second_lock.write(second_lock.generation, second_lock.holders)
    first_lock.close()
    assert store.try_acquire(NAME, other_owner) == owner
    assert second_lock.is_held()
    second_lock.close()
    assert list_locks(store) == []


def test_other_services_and_months_are_not_locked(store: LockStore) -> None:
    month_locks = [make_locks("a", store), make_locks("b", store), make_locks("c", store)]
    month_locks[0].acquire(GREEN, DAYS[:1], pytest.fail)
    month_locks[1].acquire(GREEN, DAYS[1:], pytest.fail)
    month_locks[2].acquire(YELLOW, DAYS, pytest.fail)
    for month_lock in month_locks:
        month_lock.close()


def test_runs_with_overlapping_months_do_not_deadlock(store: LockStore) -> None:
    turns: list[str] = []

    def work(run: str, days: list[date]) -> None:
        month_locks = make_locks(run, store)
        month_locks.acquire(GREEN, days, log_nothing)
        turns.append(run)
        time.sleep(0.05)
        month_locks.close()

    runs = [
        threading.Thread(target=work, args=(str(number), days))
        for number, days in enumerate([DAYS, DAYS[::-1]] * 3)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
    assert sorted(turns) == ["0", "1", "2", "3", "4", "5"]


def test_wait_for_a_lock_has_a_limit(store: LockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_LOCK_TIMEOUT", "1")
    first = make_locks("first", store)
    first.acquire(GREEN, DAYS, log_nothing)
    with pytest.raises(StoreError, match=r"2021-01 is still locked by run first .* after 1 s"):
        make_locks("second", store).acquire(GREEN, DAYS, log_nothing)
    first.close()


HOLD_LOCK = """
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


def kill_holder(where: str, lease: float = LEASE) -> None:
    """Hold the lock in a process and kill it."""
    command = [sys.executable, "-c", HOLD_LOCK, where, str(lease)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)


def test_killed_run_frees_its_folder_lock_immediately(folder: FolderLocks) -> None:
    kill_holder(str(folder.folder))
    lock = folder.try_acquire(NAME, Owner("next"))
    assert not isinstance(lock, Owner)
    lock.close()


def test_killed_run_frees_its_bucket_lock_after_its_lease(
    bucket: BucketLocks,
) -> None:
    kill_holder("lake")
    written = bucket.bucket.get_blob(f"_locks/{NAME}.json").updated
    lock = bucket.try_acquire(NAME, Owner("next"))
    assert isinstance(lock, Owner)
    assert lock.run_id == "killed"
    month_locks = make_locks("next", bucket)
    month_locks.acquire(GREEN, DAYS[:1], log_nothing)
    waited = bucket.bucket.get_blob(f"_locks/{NAME}.json").updated - written
    assert LEASE + MARGIN < waited.total_seconds() < LEASE + 60
    month_locks.check()
    month_locks.close()
    assert list_locks(bucket) == []


def test_run_without_a_renewed_lease_stops_before_a_takeover(
    bucket: BucketLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_assets.defs.resources.bucket_lock.MARGIN_SECONDS", 4.0)
    first = make_locks("first", replace(bucket, lease_seconds=1.5))
    first.acquire(GREEN, DAYS[:1], log_nothing)

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

    assert wait_until(is_lost, 60)
    monkeypatch.setattr(type(bucket.bucket.blob("x")), "upload_from_string", upload)
    with pytest.raises(StoreError, match=r"run first lost the lock of green-2021-01: .* run again"):
        first.check()
    assert isinstance(bucket.try_acquire(NAME, Owner("second")), Owner)
    second = make_locks("second", bucket)
    second.acquire(GREEN, DAYS[:1], log_nothing)
    first.close()
    second.check()
    assert list_locks(bucket) == [f"_locks/{NAME}.json"]
    second.close()


def test_one_of_two_takeovers_wins(bucket: BucketLocks) -> None:
    kill_holder("lake", 1.0)
    assert wait_until(lambda: is_stale(bucket), 60, 0.1)
    results: list[object] = []
    takers = [
        threading.Thread(target=lambda n=n: results.append(bucket.try_acquire(NAME, Owner(f"{n}"))))
        for n in range(6)
    ]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(120)
    locks_won = [result for result in results if not isinstance(result, Owner)]
    assert (len(results), len(locks_won)) == (6, 1)
    locks_won[0].close()


def test_lock_with_a_lost_answer_belongs_to_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lake").mkdir()
    with gcs_server(tmp_path) as address, http_proxy(address) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        proxy.add("POST /upload/", "lose_answer", times=2)
        store = open_bucket_locks("lake")
        month_locks = make_locks("first", store)
        month_locks.acquire(GREEN, DAYS[:1], log_nothing)
        assert proxy.left == []
        assert isinstance(store.try_acquire(NAME, Owner("second")), Owner)
        month_locks.close()
        assert list_locks(store) == []


def test_silent_bucket_does_not_delay_a_cancelled_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lake").mkdir()
    with gcs_server(tmp_path) as address, http_proxy(address) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        store = BucketLocks(open_bucket_locks("lake").bucket, 12)
        month_locks = make_locks("first", store)
        month_locks.acquire(GREEN, DAYS, log_nothing)
        proxy.add(".", "hang", times=99)
        assert wait_until(lambda: proxy.fired != [], 60, 0.1)  # a renewal is in progress
        started = time.monotonic()
        month_locks.close()
        assert time.monotonic() - started < 10


def is_stale(bucket: BucketLocks) -> bool:
    blob = bucket.bucket.get_blob(f"_locks/{NAME}.json")
    with pytest.raises(PreconditionFailed) as raised:
        bucket.bucket.blob(blob.name).upload_from_string(b"", if_generation_match=0)
    return bucket._has_expired(blob, raised.value)


def test_read_only_lake_is_named(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("no folder")
    with pytest.raises(StoreError, match=r"cannot lock .*lake/_locks/green-2021-01.lock"):
        make_locks("a", FolderLocks(tmp_path / "lake" / "_locks")).acquire(GREEN, DAYS, log_nothing)


def test_deleted_lock_stops_its_run_and_admits_the_next(folder: FolderLocks) -> None:
    first, second = make_locks("first", folder), make_locks("second", folder)
    first.acquire(GREEN, DAYS[:1], log_nothing)
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
    assert list_locks(folder) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": "x"}', "\0"])
def test_locked_file_with_any_content_is_respected(text: str, folder: FolderLocks) -> None:
    lock = folder.try_acquire(NAME, Owner("first"))
    (folder.folder / f"{NAME}.lock").write_text(text)
    assert isinstance(folder.try_acquire(NAME, Owner("second")), Owner)
    assert not isinstance(lock, Owner)
    lock.close()
    free = folder.try_acquire(NAME, Owner("second"))
    assert not isinstance(free, Owner)
    free.close()


def test_unwritable_lock_leaves_no_file(
    folder: FolderLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the attempt fails, and leaves nothing that blocks the next one."""

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("taxi_assets.defs.resources.folder_lock.os.pwrite", full)
        with pytest.raises(StoreError, match="No space left"):
            folder.try_acquire(NAME, Owner("first"))
    lock = folder.try_acquire(NAME, Owner("second"))
    assert not isinstance(lock, Owner)
    lock.close()


def test_wait_for_a_halted_process_at_the_gate_has_a_limit(
    folder: FolderLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_assets.defs.resources.folder_lock.GATE_SECONDS", 0.2)
    folder.folder.mkdir()
    with (folder.folder / ".gate").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"cannot lock .*temporarily unavailable"):
            folder.try_acquire(NAME, Owner("first"))


def test_lease_ends_while_the_machine_sleeps(
    bucket: BucketLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux's monotonic clock does not advance during sleep."""
    still = time.monotonic()
    awake = vars(time) | {"monotonic": lambda: still}
    monkeypatch.setattr("taxi_assets.defs.resources.bucket_lock.time", SimpleNamespace(**awake))
    lock = replace(bucket, lease_seconds=LEASE).try_acquire(NAME, Owner("first"))
    assert isinstance(lock, BucketLock)
    lock._ended.set()  # nothing renews it, as in a stopped process
    assert lock.is_held()
    assert wait_until(lambda: not lock.is_held(), 60)
