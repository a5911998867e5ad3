"""Whole jobs as recipes: the demos, the backbones that ship, and the tables of the paper."""
