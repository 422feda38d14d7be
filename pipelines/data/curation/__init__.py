"""`dynamicid curate`: turn unlabelled photos into a balanced set with one folder per person."""
