"""Writers of a lake: the lock, the heartbeat of each writer, and the orphan files of dead ones."""
