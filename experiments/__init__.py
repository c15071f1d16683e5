"""Experiments, their configs, and the commands. In a wheel: jaxmg.experiments."""
