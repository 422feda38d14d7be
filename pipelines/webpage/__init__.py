"""`dynamicid app`: the page on which people draw (docs/guides/page.md)."""
