"""The arithmetic of a frame, compiled: torch modules that ONNX Runtime runs without torch's overhead."""
