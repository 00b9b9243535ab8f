"""The checks of all criteria, by what they look at."""
