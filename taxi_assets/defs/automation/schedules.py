"""Schedules: each morning, request the newest day that the source can have."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from taxi_assets.date_ranges import Month
from taxi_assets.defs.jobs.daily import get_daily_job_name
from taxi_assets.errors import format_count
from taxi_assets.partitions import TIMEZONE
from taxi_assets.settings import Settings
from taxi_assets.settings.areas import AutomationSettings, DefinitionSettings
from taxi_assets.tlc.remote_version import SourceUnavailableError
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.source import probe_month_file

MORNING = "0 6 * * *"


def build_daily_schedule(service: Service, automation: AutomationSettings) -> dg.ScheduleDefinition:
    """Build `<service>_daily_schedule`, which requests day D - lag at 06:00 New York time on D.

    A day is requested if the source has its month. If the source does not answer, the day is
    requested anyway: the run retries, and its failure is reported.
    """
    lag = automation.schedule_lag_days
    days = format_count(lag, "day")

    @dg.schedule(
        name=f"{service.name}_daily_schedule",
        job_name=get_daily_job_name(service),
        cron_schedule=MORNING,
        execution_timezone=TIMEZONE,
        default_status=dg.DefaultScheduleStatus.RUNNING
        if automation.running
        else dg.DefaultScheduleStatus.STOPPED,
        description=f"Every day at 06:00 in New York: {service.name} trips of {days} before "
        "(TAXI_SCHEDULE_LAG_DAYS). Skips while the day's month is not published.",
    )
    def daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        settings = DefinitionSettings.from_env()
        today = context.scheduled_execution_time.astimezone(ZoneInfo(TIMEZONE)).date()
        day = today - timedelta(days=lag)
        first, last = settings.start_date, settings.end_date
        if day < first:
            return dg.SkipReason(
                f"{day} ({days} ago) is before the first partition, {first}: change "
                "TAXI_START_DATE or TAXI_SCHEDULE_LAG_DAYS"
            )
        if last is not None and day > last:
            return dg.SkipReason(
                f"{day} ({days} ago) is after the last partition, {last} (TAXI_END_DATE)"
            )
        month = Month.of(day)
        try:
            if probe_month_file(Settings.from_env().source.template, service, month) is None:
                return dg.SkipReason(
                    f"{service.name} {month} is not published yet, so {day} is not requested; "
                    f"{service.name}_new_month_sensor, if it runs, loads the month once it is"
                )
        except SourceUnavailableError as error:
            context.log.warning(f"{error}. {day} is requested anyway")
        return dg.RunRequest(run_key=f"{service.name} {day}", partition_key=str(day))

    return daily
