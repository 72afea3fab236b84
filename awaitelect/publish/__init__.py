"""What the cluster is told about who leads: where a Service's traffic goes, a label on the pod, Events.

Boundary: nothing here decides who leads, and no failure here leaves this package but as a line of the log. It has
connections of its own, and what it does stands behind every read and write of the lease.
"""
