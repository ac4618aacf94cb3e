"""Steps that do not wait for each other, side by side in one process.

Dagster 1.13 has an executor that runs steps one after the other in the run's process, and one that
starts a process for each, which costs this work four to eight times its time. Here Postgres gets
its COPY while BigQuery works on its load job: with both servers on the same two cores, the stores'
steps of a month took 5.3 s in place of 6.3.

The first step that is ready runs in the main thread, as in Dagster's own executor, so that a
cancelled run stops at once; a second one runs in a thread, and a cancelled run waits for it.
"""

from __future__ import annotations

import contextvars
import os
import sys
from collections.abc import Generator
from contextlib import ExitStack, closing, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Self, cast

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import (
    _handle_compute_log_setup_error,
    _handle_compute_log_teardown_error,
    _trigger_hook,
    dagster_event_sequence_for_step,
)
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.in_process import InProcessExecutor

AT_ONCE = 2
"""Steps: a run of one service has no more that are ready together."""
LOOK = 0.2
"""Seconds after which the main thread looks whether the run was cancelled."""

Events = Generator[dg.DagsterEvent, None, None]


@dg.executor(
    name="side_by_side",
    config_schema={"retries": get_retries_config()},  # type: ignore[no-untyped-call]
)
def side_by_side_executor(context: dg.InitExecutorContext) -> SideBySideExecutor:
    """Run steps in the run's process, two at a time where they do not wait for each other."""
    config: dict[str, Any] = context.executor_config["retries"]  # type: ignore[assignment]
    return SideBySideExecutor(RetryMode.from_config(config) or RetryMode.ENABLED)


class SideBySideExecutor(InProcessExecutor):
    """Dagster's in-process executor, with a thread for a second step."""

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Events:
        """Run the plan's steps; yields their events."""
        steps = EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute)
        text = f"Executing steps side by side in process (pid: {os.getpid()})"
        yield dg.DagsterEvent.engine_event(plan_context, text, steps)
        yield from ExecuteRunWithPlanIterable(
            execution_plan=plan_context.execution_plan,
            iterator=_run_steps,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=plan_context.execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )


def _run_steps(job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Events:
    with (
        InstanceConcurrencyContext(job_context.instance, job_context.dagster_run) as limits,
        execution_plan.start(
            retry_mode=job_context.retry_mode,
            max_concurrent=AT_ONCE,
            instance_concurrency_context=limits,
            step_dependency_config=job_context.step_dependency_config,
        ) as active,
        ExitStack() as output,
    ):
        try:
            yield _capture_output(job_context, execution_plan, output)
        except Exception:  # noqa: BLE001 - a run goes on without
            yield from _handle_compute_log_setup_error(job_context, sys.exc_info())
        with _Steps(job_context, active) as steps:
            yield from steps.run()
        try:
            output.close()
        except Exception:  # noqa: BLE001
            yield from _handle_compute_log_teardown_error(job_context, sys.exc_info())


def _capture_output(
    job_context: PlanExecutionContext, execution_plan: ExecutionPlan, output: ExitStack
) -> dg.DagsterEvent:
    """Have what the process prints kept for the UI, until `output` is closed."""
    logs = job_context.instance.compute_log_manager
    file_key = create_compute_log_file_key()  # type: ignore[no-untyped-call]
    key = logs.build_log_key_for_run(job_context.run_id, file_key)
    steps = [step.key for step in execution_plan.get_steps_to_execute_in_topo_order()]
    context = output.enter_context(logs.capture_logs(key))
    return dg.DagsterEvent.capture_logs(job_context, steps, key, context)


class _Steps:
    """The steps under way; a context that at its end waits for those in threads."""

    def __init__(self, job_context: PlanExecutionContext, active: ActiveExecution) -> None:
        self.job_context = job_context
        self.active = active
        self.threads: dict[str, Thread] = {}
        self.told: SimpleQueue[tuple[_Step, dg.DagsterEvent | None]] = SimpleQueue()
        """What steps in threads did; None: the step is at its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self.threads.values():
            thread.join()

    def run(self) -> Events:
        """Run all steps, the first ready one here and another in a thread."""
        while not self.active.is_complete:
            ready = [
                _Step(self.job_context, step, self.active)
                for step in self.active.get_steps_to_execute()
            ]
            yield from self.active.concurrency_event_iterator(self.job_context)
            for step in ready[1:]:
                self._start(step)
            if ready:
                with closing(ready[0].events()) as events:
                    for event in events:
                        yield from self._note(ready[0], event)
                        yield from self._look(0)
                yield from self._ended(ready[0])
            elif self.threads:
                yield from self._look(LOOK)
            else:
                self.active.sleep_til_ready()
            if self.active.check_for_interrupts():
                raise DagsterExecutionInterruptedError

    def _start(self, step: _Step) -> None:
        def work() -> None:
            try:
                for event in step.events():
                    self.told.put((step, event))
            except BaseException as error:  # noqa: BLE001 - raised in the main thread
                step.error = error
            self.told.put((step, None))

        context = contextvars.copy_context()
        thread = Thread(target=context.run, args=[work], name=step.key)
        self.threads[step.key] = thread
        thread.start()

    def _look(self, seconds: float) -> Events:
        """What steps in threads did meanwhile; waits so long for the first of it."""
        try:
            step, event = self.told.get(timeout=seconds) if seconds else self.told.get_nowait()
            while True:
                if event is not None:
                    yield from self._note(step, event)
                else:
                    self.threads.pop(step.key).join()
                    if step.error is not None:
                        raise step.error
                    yield from self._ended(step)
                step, event = self.told.get_nowait()
        except Empty:
            return

    def _note(self, step: _Step, event: dg.DagsterEvent) -> Events:
        step.told.append(event)
        yield event
        self.active.handle_event(event)

    def _ended(self, step: _Step) -> Events:
        self.active.verify_complete(self.job_context, step.key)
        for event in self.active.plan_events_iterator(self.job_context):
            step.told.append(event)
            yield event
        yield from _trigger_hook(step.context, step.told)


class _Step:
    """One step and what it told so far."""

    def __init__(
        self, job_context: PlanExecutionContext, step: ExecutionStep, active: ActiveExecution
    ) -> None:
        self.key = step.key
        self.context = job_context.for_step(step, active.get_known_state())
        self.told: list[dg.DagsterEvent] = []
        self.error: BaseException | None = None

    def events(self) -> Events:
        """Run it.

        Raises:
            Exception: what Dagster itself could not do, such as reach its storage. That ends the
                run with a reason for which the daemon starts it again, as it does for a process
                that died; the step's own failure would be none.
        """
        sequence = cast("Events", dagster_event_sequence_for_step(self.context))
        try:
            for event in sequence:
                yield event
                failed = event.step_failure_data if event.is_step_failure else None
                if failed and failed.error_source == ErrorSource.UNEXPECTED_ERROR:
                    raise self.context.step_exception or RuntimeError(str(failed.error))
        finally:
            # Given up for the other step's error it has another event to tell: nobody listens.
            with suppress(RuntimeError):
                sequence.close()
