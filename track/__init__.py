"""Track every object through a video."""
