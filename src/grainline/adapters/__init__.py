"""Room: which change is allowed? One file per adapter; the file's name is the adapter's."""
