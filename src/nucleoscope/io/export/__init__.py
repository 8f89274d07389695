"""Results out, one file per format."""
