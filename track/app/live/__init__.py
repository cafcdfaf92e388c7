"""Live views: playback, window controls, web sessions and the guard of the page."""
