"""Room: who speaks, and how loudly? One file per supervision; the file's name is the supervision's."""
