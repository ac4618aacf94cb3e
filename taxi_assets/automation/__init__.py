"""Jobs over the assets."""
