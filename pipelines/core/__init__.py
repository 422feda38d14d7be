"""What everything else leans on: the chain, parameters, paths, errors, row schemas, files, privacy."""
