"""The metrics, by theme. Every function is pure arithmetic on what the judges read; NaN means "no value"."""
