"""Face. The `shisuan` command."""
