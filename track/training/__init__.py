"""Training: Lightning modules and data modules, the only code that imports lightning."""
