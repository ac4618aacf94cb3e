"""The command `python -m taxi_assets.quickstart`, an alias of `taxi-assets quickstart`.

Nothing else belongs here. The command itself is in `cli.quickstart`.
"""
