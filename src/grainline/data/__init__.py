"""Records in: load, check, template, tokenise with offsets, mix, order, collate. Nothing is discarded in silence."""
