"""The `av-ssl` command; every sub-command is a module with `add_arguments(parser)` and `run(args)`."""
