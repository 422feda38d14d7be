"""One module per subcommand of `dynamicid`, imported when the subcommand is called."""
