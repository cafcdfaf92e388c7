"""What people look at: drawn frames, the window, the Rerun viewer."""
