"""Everything under results/: names, paths, typed records, readers and writers. No other room joins
such a path or parses such a file."""
