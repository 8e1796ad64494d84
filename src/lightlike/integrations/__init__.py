"""What the users of other libraries need on top of the core; none of them is imported."""
