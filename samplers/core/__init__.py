"""The core: a sampler is a table of numbers, and one executor runs every table.

Read plan.py (the table and what its numbers mean), then execute.py (a row at a time, on tensors).
program.py turns rows into passes over memory, and run.py says where the network is called. ops.py
has the rows themselves, reading.py what each entry of a file must be, and sense.py whether a table
whose entries are right is a sampler of its noise process.
"""
