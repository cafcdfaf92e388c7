"""Data sets: annotations, downloads, and generated ones."""
