"""Studies of allocations that are known beforehand, through the one trial path."""
