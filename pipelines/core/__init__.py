"""The base of all packages: the chain, parameters, paths, errors, row schemas, files, settings of libraries."""
