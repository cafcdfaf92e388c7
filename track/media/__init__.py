"""Frames in and out: files, cameras and streams, videos and result files."""
