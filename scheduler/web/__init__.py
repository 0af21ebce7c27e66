"""Face. Server-rendered status page."""
