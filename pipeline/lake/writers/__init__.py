"""Writers of a lake: the lock, the heartbeat of each writer, and the orphan files of dead ones.

The states of a writer:

    registered   heartbeat exists (`heartbeats`)
        |
    decoding     writes files that carry the writer's name; no commit names them yet; no lock is held
        |
    committing   holds the lock (`lock`); each commit names files of one table
        |
    done         lock released, heartbeat deleted

    A writer that fails deletes its own orphan files (`delete_orphan_files`) and its heartbeat.
    A writer that is killed leaves its heartbeat. In a folder the operating system has released its lock on the file; in
    a bucket the object is old. The next writer that registers deletes the orphan files, then the heartbeat. Commits
    that were made stay: the next build restores the tables that are ahead of `shards`
    (`builder.state.undo_half_commits`).
"""
