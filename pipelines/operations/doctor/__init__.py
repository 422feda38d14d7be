"""Whether a profile can reach its end on this machine, and how long it will take: `dynamicid doctor`."""
