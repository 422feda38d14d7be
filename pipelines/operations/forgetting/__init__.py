"""Delete a person's data (`dynamicid forget`) from every place where the project keeps it."""
