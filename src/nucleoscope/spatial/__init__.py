"""Who stands next to whom, with honest nulls and edge correction."""
