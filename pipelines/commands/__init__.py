"""The subcommands of `dynamicid`; a module is imported when one of its subcommands is called."""
