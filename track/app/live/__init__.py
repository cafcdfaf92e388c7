"""What the live commands are made of: playback, the window's controls, and the page's sessions."""
