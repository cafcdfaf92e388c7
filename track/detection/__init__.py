"""Detectors: networks, their fast inference, and the cache of what they find."""
