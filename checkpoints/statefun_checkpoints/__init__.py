"""Everything about snapshots: the cut, the files, the commit log, restoring, collecting, reading.

Knows nothing of Ray or of functions. Import the submodules; this module stays empty so that
importing a pure one (`model`, `commit_log`, ...) pulls in neither pyarrow nor s3fs.
"""
