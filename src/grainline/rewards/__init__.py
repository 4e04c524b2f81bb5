"""Who scores an answer, piece by piece, and how sure it is."""
