"""Alerts on failed runs, failed checks and other conditions: sensors, messages and delivery.

Code that observes runs and sends messages belongs here; nothing here starts a run. The settings of
alerts belong in `settings`.
"""
