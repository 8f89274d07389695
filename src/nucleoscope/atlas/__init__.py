"""Nuclei as pictures: crops, features, subtypes, search, map."""
