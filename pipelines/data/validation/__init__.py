"""Validate metadata with Great Expectations: frames without pixels, suites, verdicts."""
