"""Face. FastAPI in and out, nothing else."""
