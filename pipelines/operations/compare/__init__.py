"""Methods, versions or parameters beside each other: one budget, one evaluation, one table (`dynamicid compare`)."""
