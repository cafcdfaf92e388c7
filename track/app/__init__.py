"""The commands, as Hydra applications: the only place that imports hydra."""
