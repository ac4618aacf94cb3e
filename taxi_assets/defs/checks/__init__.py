"""The asset checks of a service: their specifications, and the comparisons that they make.

One module per asset or kind of check belongs here. A check compares values and returns a
`CheckResult`; it neither logs nor stores. An ERROR check on the cleaned frame is evaluated before
the day is stored: a day that fails it is rejected, and the run's other days continue. Dagster's own
`blocking` would stop the entire run, so the descriptions name the effect of a failed check.
"""
