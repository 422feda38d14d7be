"""The sections of `params.yaml`, typed; `pipelines.core.params` reads the file."""
