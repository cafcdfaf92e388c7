"""Display: drawing on images, annotated videos, the window and the Rerun viewer."""
