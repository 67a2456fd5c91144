"""What a forward recomputes."""
