"""Scores of tracks and detections, calibration, and plots of them."""
