"""One request cancels a run; without Dagster's private name a warning names the second one."""

from __future__ import annotations

import warnings
from contextlib import suppress

import dagster as dg
import pytest
from dagster._utils import interrupts

from taxi_assets.dagster_internals.cancellation import interrupt_on_cancel
from taxi_assets.dagster_internals.private_names import RECEIVED_INTERRUPT
from taxi_assets.defs.stage import build_retry_policy


def build_interrupted_job(attempts: list[int]) -> dg.JobDefinition:
    """Build a job whose step has retries and is interrupted in each attempt."""

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=2))
    def step() -> None:
        attempts.append(len(attempts))
        with interrupt_on_cancel():
            raise dg.DagsterExecutionInterruptedError

    @dg.op(ins={"after": dg.In(dg.Nothing)})
    def later() -> None:
        attempts.append(-1)

    @dg.job
    def work() -> None:
        later(step())

    return work


def run_job(attempts: list[int]) -> None:
    """Run the job as the CLI does."""
    with dg.instance_for_test() as instance, pytest.raises(dg.DagsterExecutionInterruptedError):
        build_interrupted_job(attempts).execute_in_process(instance=instance)


def raise_interrupt() -> None:
    """Raise inside the block the exception of a signal, and expect it outside."""
    with suppress(KeyboardInterrupt), interrupt_on_cancel():
        raise KeyboardInterrupt


def test_cancelled_run_does_not_wait_for_its_next_attempt() -> None:
    """Dagster sleeps there through every signal; the promise is 10 s."""
    policy = build_retry_policy()
    waits = [policy.calculate_delay(attempt) for attempt in range(1, policy.max_retries + 1)]
    assert max(waits) <= 8
    assert sum(waits) >= 20, "a server that restarts is waited for"


def test_dagster_stores_an_interrupt_under_the_private_name() -> None:
    """Fail with a Dagster that has dropped the name or ignores it."""
    attempts: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        run_job(attempts)
    assert attempts == [0]
    assert interrupts.check_captured_interrupt() is False


@pytest.mark.parametrize("replacement", ["gone", "renamed", {}])
def test_missing_private_name_leaves_dagsters_behaviour_with_a_warning(
    replacement: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if replacement == "gone":
        monkeypatch.delattr(interrupts, RECEIVED_INTERRUPT.attribute)
    else:
        monkeypatch.setattr(interrupts, RECEIVED_INTERRUPT.attribute, replacement)
    advice = r"interrupts\._received_interrupt: .* terminate the run again"
    with pytest.warns(RuntimeWarning, match=advice):
        raise_interrupt()
