"""What `grutrack benchmark` measures: the cost of trackers, beside public ones, and of whole pipelines."""
