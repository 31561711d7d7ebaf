"""Tables at rest: Parquet files that workers write, Delta commits that the driver makes, releases that tie them up.

- `parts`: write one Parquet file (any process, any node);
- `commits`: make files part of a table, atomically, with what the commit stands for as metadata;
- `releases`: make a set of table versions visible as one;
- `reading`: scan a table with Polars, query all with DuckDB;
- `leftovers`: delete what a killed or failed build wrote and never committed;
- `pins`: which releases are named by exports and scores;
- `vacuum`: delete what no release needs.
"""
