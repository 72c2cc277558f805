"""The core: a sampler is a table of numbers, and one executor runs every table.

Read plan.py (the table and what its numbers mean), then execute.py (a row at a time, on tensors).
program.py turns rows into passes over memory, convert.py a network's output into data or noise,
run.py says where the network is called and what noise a seed gives, and batched.py runs samples
that stand at different rows.
"""
