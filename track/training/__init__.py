"""Lightning modules and data modules: the only place that imports lightning."""
