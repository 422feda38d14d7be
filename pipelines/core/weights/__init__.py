"""The networks of the project: where they come from, how they are fetched and checked, what their licences allow."""
