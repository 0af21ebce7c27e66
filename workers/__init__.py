"""What runs on nodes: the agent, the Ray runtime and bridge, runner processes, the storage and NVML doors."""
