"""Torture: real instances of awaitelect on one lease, and everything that can happen to them.

`python -m tests.torture --instances 3 --minutes 10 --store kubernetes` starts a real API server, real instances (each
behind a proxy of its own that misbehaves when told to), and real commands that write down when they are alive; it
strikes at them by a plan that follows from a seed, and judges what has happened: never two commands at once, somebody
leads within a bound, no exit status is lost, nothing is left behind. `--store file` does the same to a lease in a
folder, on a small disk of its own.

`plan` says what strikes when; `faults` strikes; `world` runs the instances; `lives` and `history` watch the commands
and the lease, behind the instances' backs; `judgement` weighs it all; `timeline` draws it.
"""
