"""`python -m taxi_assets.quickstart`, which is `taxi-assets quickstart`.

Nothing else belongs here: the command is in `cli.quickstart`.
"""
