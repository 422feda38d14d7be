"""DynamicID on torch and diffusers: attention, face encoder, reconfigurator, pipeline, training."""
