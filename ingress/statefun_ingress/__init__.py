"""Getting events in durably, and to the workers that own their addresses.

An ingress is a log with an HTTP front: append, fsync with the group, answer. It lives
outside the rollback of the functions: workers come, go and start over from an earlier
position, and the log keeps accepting. Nothing here knows functions, snapshots or Ray.
"""
