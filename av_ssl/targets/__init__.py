"""Where targets come from: momentum teachers."""
