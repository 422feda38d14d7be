"""The sections of `params.yaml`, typed; `pipelines.params` reads the file."""
