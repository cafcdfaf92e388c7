"""Live views: playback, window controls and web sessions."""
