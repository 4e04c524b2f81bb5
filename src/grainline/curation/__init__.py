"""Better preference data: one file, one step from rows to rows."""
