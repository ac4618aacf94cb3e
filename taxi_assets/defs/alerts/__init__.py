"""Alerts for failed runs and failed checks: sensors, the message, and the places it is sent to.

Nothing here starts a run. The alert settings are read in `settings`.
"""
