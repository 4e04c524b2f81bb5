"""Room: what should the evidence look like? One file per objective; the file's name is the objective's."""
