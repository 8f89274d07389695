"""Maps to instances to 3D nuclei to a table."""
