"""One module per stage of the chain; each has `run(params, inputs, outputs) -> report`."""
