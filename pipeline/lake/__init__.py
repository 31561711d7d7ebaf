"""Tables at rest: Parquet files that workers write, Delta commits that the driver makes, releases that tie them up.

- `snapshot`: read the tables at fixed versions; `transaction`: commit under the lock; both use `delta_tables` (open and
  create tables) and `delta_log` (metadata of commits);
- `parquet_writer`: write one Parquet file (any process, any node);
- `releases`: make a set of table versions visible as one, and find what pins a release;
- `reads`: check what is read for damage, and name the cause of a read that failed;
- `rewrite`: replace damaged files; `vacuum`: delete what no release needs;
- `duckdb_views`: query all tables with DuckDB, in a sandbox;
- `writers/`: the lock, heartbeats and orphan files.
"""
