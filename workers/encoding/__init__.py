"""What the encode runner does, a module per part: request, plan, run, verify; sound; join."""
