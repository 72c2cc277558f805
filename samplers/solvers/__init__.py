"""The solvers: from a grid to the table of a method. Read ddim, then multistep, then dpmpp."""
