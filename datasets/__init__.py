"""Raw files to prepared sets: `prepare`, and a builder a folder. In a wheel: jaxmg.datasets."""
