"""Pure planners, a module per job kind: a job file becomes steps, a step and an index become one order for a worker."""
