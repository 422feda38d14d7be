"""`dynamicid app`: the web page on which people draw pictures (docs/guides/page.md)."""
