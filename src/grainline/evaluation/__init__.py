"""What changed, what it cost, what was forgotten."""
