"""One request ends a run; without Dagster's private name a warning says that it takes two."""

from __future__ import annotations

import warnings
from contextlib import suppress

import dagster as dg
import pytest
from dagster._utils import interrupts

from taxi_assets.dagster_internals.cancellation import interrupt_on_cancel
from taxi_assets.dagster_internals.private_names import RECEIVED_INTERRUPT
from taxi_assets.defs.stage import build_retry_policy


def interrupted_job(attempts: list[int]) -> dg.JobDefinition:
    """A step with retries that is interrupted in each attempt."""

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


def run(attempts: list[int]) -> None:
    """Run the job as the CLI does."""
    with dg.instance_for_test() as instance, pytest.raises(dg.DagsterExecutionInterruptedError):
        interrupted_job(attempts).execute_in_process(instance=instance)


def interrupt() -> None:
    """Raise inside the block what a signal raises, which comes out again."""
    with suppress(KeyboardInterrupt), interrupt_on_cancel():
        raise KeyboardInterrupt


def test_no_wait_between_attempts_holds_a_cancelled_run_for_long() -> None:
    """Dagster sleeps there, whatever signal comes; 10 s are the promise."""
    policy = build_retry_policy()
    waits = [policy.calculate_delay(attempt) for attempt in range(1, policy.max_retries + 1)]
    assert max(waits) <= 8
    assert sum(waits) >= 20, "a server that restarts is waited for"


def test_dagster_keeps_an_interrupt_where_we_keep_ours() -> None:
    """Fails with a Dagster that has the name no more, or does not go by it."""
    attempts: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        run(attempts)
    assert attempts == [0]
    assert interrupts.check_captured_interrupt() is False


@pytest.mark.parametrize("found", ["gone", "renamed", {}])
def test_without_the_name_dagsters_own_way_is_left_with_a_warning(
    found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if found == "gone":
        monkeypatch.delattr(interrupts, RECEIVED_INTERRUPT.attribute)
    else:
        monkeypatch.setattr(interrupts, RECEIVED_INTERRUPT.attribute, found)
    advice = r"interrupts\._received_interrupt: .* terminate the run again"
    with pytest.warns(RuntimeWarning, match=advice):
        interrupt()
