"""Sources at addresses, in buckets and by patterns: resolved to local files in the cache."""
