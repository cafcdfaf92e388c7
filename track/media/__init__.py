"""Media: video sources, live capture, images, video output and result files."""
