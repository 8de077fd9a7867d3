"""The rooms of faults.py: sweeps whose processes are killed, stopped and starved, and what must hold afterwards.

ledger       a line for every intent and outcome, written by whichever process has it
judge        the invariants: a ledger and a study go in, violations come out
contestants  the sweeps under test: this package's and bare Optuna's
case         one study in one directory: commands, kills, recoveries
toy, bare    the programs that a case runs
points       wrappers that kill their own process before or after a chosen call
kills        faults: random kills, a kill at every point
outages      faults: stopped processes, full disks, torn journals, held locks, clock jumps, a server's crash
tiny         faults: kills of real training on the tiny model
"""
