"""`dynamicid app`: the page on which people draw (docs/app.md)."""
