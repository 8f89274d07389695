"""Points to pseudo labels to projections."""
