"""The method: motion, association, and the tracker that joins them."""
