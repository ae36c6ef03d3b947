"""The commands of an operator: change many instances at once, and see who did what."""
