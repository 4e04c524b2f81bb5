"""Room: how is the change made? One file per optimizer; the file's name is the optimizer's."""
